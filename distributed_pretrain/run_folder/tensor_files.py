"""Tensors and nested values as files that are hashed while written and never unpickled.

Tensors go into the safetensors format: 8 bytes that give the length of a JSON header, the header,
the raw values. The library reads them back. It does not write them: its `save_file` refuses tied
weights, makes files that only their owner may read, and has a full disk as an error of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

# Hashing and writing such a piece lets other threads run meanwhile, and the write finds in a
# core's cache what the hash has just read.
PIECE_BYTES = 1 << 20
_DTYPE_NAMES = {
    **{getattr(torch, f"float{bits}"): f"F{bits}" for bits in (16, 32, 64)},
    **{getattr(torch, f"int{bits}"): f"I{bits}" for bits in (8, 16, 32, 64)},
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_hashed(
    path: Path,
    content: Iterable[bytes | memoryview],
    *,
    after_piece: Callable[[], object] = lambda: None,
) -> str:
    """The sha256 (hex) of a new file `path` that holds `content`; it is not synced.

    `after_piece` is called after each `PIECE_BYTES` or a little more. Raises OSError as the system
    does.
    """
    digest, since_rest = hashlib.sha256(), 0
    with path.open("wb", buffering=0) as file:
        for part in content:
            view = memoryview(part)
            for start in range(0, len(view), PIECE_BYTES):
                piece = view[start : start + PIECE_BYTES]
                digest.update(piece)
                since_rest += len(piece)
                while piece:  # a nearly full disk takes a part first
                    piece = piece[file.write(piece) :]
                if since_rest >= PIECE_BYTES:
                    after_piece()
                    since_rest = 0
    return digest.hexdigest()


def safetensors_content(tensors: dict[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The parts of a safetensors file, the tensors' own memory where they are contiguous.

    Tensors that share memory are each written whole. Raises KeyError for a type of number that
    the format does not know.
    """
    # The widest first, as the library does: every tensor then starts at a multiple of its width.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header, end = {}, 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        dtype, shape = _DTYPE_NAMES[tensor.dtype], list(tensor.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        values = tensor.detach().cpu().contiguous().reshape(-1)
        yield values.view(torch.uint8).numpy().data


def parse_tensors(content: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file, copied. Raises ValueError where it is none."""
    try:
        return load(content)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"no safetensors file ({first_line(error)})") from error


def first_line(error: BaseException) -> str:
    """What an error says first, without the rest of its lines."""
    return str(error).partition("\n")[0]


def first_mismatch(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """The first name, shape or type of number in which tensors differ; None where none does."""
    for name in sorted(found.keys() ^ wanted.keys()):
        return f"{name!r} is missing" if name in wanted else f"it has no {name!r}"
    for name, tensor in wanted.items():
        if (own := _kind_of(found[name])) != (other := _kind_of(tensor)):
            return f"{name!r} is {own}, and should be {other}"
    return None


def is_finite(tensor: Tensor) -> bool:
    """Whether it holds neither NaN nor an infinity."""
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def first_not_finite(found: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> str | None:
    """The first tensor with NaN or an infinity, where `like` has none; None where there is none."""
    for name, tensor in found.items():
        if not is_finite(tensor) and is_finite(like[name]):
            return f"{name!r} holds numbers that are not finite"
    return None


def _kind_of(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def split_tensors(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """`tree` without its tensors, as plain JSON, and the tensors by their path ("state.0.step").

    A tree is made of dicts (with keys of any plain type), lists, tuples, tensors, numbers,
    strings, booleans and None; nothing mutable is shared with it but the tensors' memory. The
    JSON keeps a tensor's strides: a fused optimizer wants moments laid out as their parameter.
    Raises TypeError for anything else in the tree.
    """
    tensors: dict[str, Tensor] = {}
    return _split(tree, (), tensors), tensors


def join_tensors(plain: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree that `split_tensors` took apart, with these tensors in it.

    Tensors already laid out as they were are taken as they are, others copied. Raises ValueError
    for what `split_tensors` does not write.
    """
    match plain:
        case list():
            return [join_tensors(item, tensors) for item in plain]
        case {"tensor": str(path), "stride": list(stride)} if path in tensors:
            tensor = tensors[path]
            if list(tensor.stride()) == stride:
                return tensor
            if not _is_dense(tensor.shape, stride):
                raise ValueError(
                    f"{path}: no stride of a tensor of {tuple(tensor.shape)}: {stride}"
                )
            return tensor.new_empty_strided(tensor.shape, stride).copy_(tensor)
        case {"tuple": list(items)}:
            return tuple(join_tensors(item, tensors) for item in items)
        case {"dict": list(pairs)} if all(map(_is_pair, pairs)):
            return {key: join_tensors(value, tensors) for key, value in pairs}
        case dict():
            raise ValueError(f"neither tensor, tuple nor dict: {str(plain)[:100]}")
    return plain


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and not isinstance(pair[0], list | dict)


def _is_dense(shape: Sequence[int], stride: list[Any]) -> bool:
    """Whether a tensor laid out so has no holes: others could take any amount of memory."""
    if len(stride) != len(shape) or not all(type(each) is int and each >= 0 for each in stride):
        return False
    expected = 1
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True


def _split(tree: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    match tree:
        case Tensor():
            name = ".".join(path)
            assert name not in tensors, f"two tensors at {name}"
            tensors[name] = tree
            # Of a copy: the tensor itself may be a view with holes.
            dense = torch.empty_like(tree, device="meta")
            return {"tensor": name, "stride": list(dense.stride())}
        case dict():
            pairs = [
                [key, _split(value, (*path, str(key)), tensors)] for key, value in tree.items()
            ]
            return {"dict": pairs}
        case list() | tuple():
            items = [_split(item, (*path, str(i)), tensors) for i, item in enumerate(tree)]
            return items if isinstance(tree, list) else {"tuple": items}
        case None | bool() | int() | float() | str():
            return tree
    raise TypeError(f"{'.'.join(path)}: a {type(tree).__name__} has no place in a checkpoint")
