"""The newcomer's own tests run where they belong: in the copy."""

collect_ignore = ["example"]
