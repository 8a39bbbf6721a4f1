"""Of at least 150 sentences 98 % of the ends are found where a reader puts them.

The paragraphs are written for this test, in the manner of OpenI's reports: short statements, marks
of de-identification (XXXX), numbered impressions, decimals, abbreviations and slips of the pen.
Each is a list of its sentences; numbers of a list are not part of them.
"""

from __future__ import annotations

from itertools import accumulate

import pytest

from data_shards.report_text.sentences import split_sentences

PARAGRAPHS: tuple[tuple[str, ...], ...] = (
    ("The heart is normal in size.", "The mediastinum is unremarkable.", "The lungs are clear."),
    ("No pneumothorax.", "No large pleural effusion.", "No acute bony abnormality."),
    ("Heart size is within normal limits.", "XXXX sternotomy XXXX are intact."),
    ("There is a 1.5 cm nodule in the right upper lobe.", "Follow-up CT in 3 months is advised."),
    ("Cardiac silhouette is 15.2 cm wide.", "The C/T ratio is 0.48.", "This is normal."),
    ("Lungs are hyperexpanded.", "Flattened diaphragms.", "Findings suggest COPD."),
    ("Low lung volumes.", "Bibasilar atelectasis vs. infiltrate.", "No effusion."),
    ("Compared to XXXX, there is no change.", "The PICC line tip is in the SVC."),
    ("Dr. XXXX was called at 3:15 p.m. with the result.", "He acknowledged it."),
    ("Stable calcified granuloma, e.g. in the left apex.", "No new nodule."),
    ("Pacemaker leads in the right atrium and ventricle.", "No pneumothorax is seen."),
    ("The XXXX are normal.", "XXXX XXXX and soft tissue are unremarkable."),
    ("T8 compression fracture is unchanged.", "Approx. 30% loss of height.", "No retropulsion."),
    ("Old healed fx. of the left 7th rib.", "Degenerative changes of the spine."),
    ("Prominent interstitial markings bilaterally.", "Is this edema?", "Clinical correlation."),
    ("The ET tube is 4.1 cm above the carina.", "The NG tube is below the diaphragm."),
    ("No focal consolidation, effusion, or pneumothorax.", "Osseous structures are intact."),
    ("Right IJ catheter tip at the cavoatrial junction.", "No kink.", "Stable."),
    ("There are no focal areas of consolidation.", "There is no PTX.", "No pleural fluid."),
    ("Scoliosis of the thoracic spine, convex to the right.", "Otherwise negative."),
    ("Elevated right hemidiaphragm.", "Unchanged since XXXX.", "Clear left lung."),
    ("Mild cardiomegaly.", "Tortuous aorta.", "Atherosclerotic calcification of the arch."),
    ("Patchy opacity in the lingula, i.e. pneumonia.", "Recommend repeat in 6 weeks."),
    ("Nodule of 8 mm.", "Prior was 7 mm.", "No interval growth of significance."),
    ("The trachea is midline.", "Hilar contours are normal.", "No adenopathy."),
    ("Chest tube removed.", "Tiny apical pneumothorax, approx. 5 mm.", "Continued follow-up."),
    ("Surgical clips in the RUQ.", "No free air under the diaphragm."),
    ("Emphysematous changes, worst in the upper lobes.", "No bullae over 2 cm."),
    ("Left PICC was pulled back by 2.5 cm at 10 a.m. today.", "Tip now in the mid SVC."),
    ("There is blunting of the L. costophrenic angle.", "Pleural scar vs. small effusion."),
    ("AICD is in place.", "Leads are intact.", "No pulmonary vascular congestion."),
    ("Kyphosis.", "Osteopenia.", "Multilevel disc disease."),
    ("Note is made of a hiatal hernia.", "Air-fluid level behind the heart."),
    ("No. 3 screw is loose.", "The other hardware is intact.", "Alignment is maintained."),
    ("Exam is limited by body habitus.", "Grossly clear lungs.", "No obvious fracture."),
    ("Granulomas in the spleen.", "Calcified hilar nodes.", "Prior histoplasmosis."),
    ("Minimal left basilar scarring (unchanged).", "No acute disease!"),
    ("The previously seen infiltrate has cleared.", "Lungs now clear.", "No residual scar."),
    ("Comparison with the film of Jan. 5 shows no change.", "Normal heart."),
    ("Bones: normal.", "Lungs: clear.", "Heart: top normal in size."),
    ("Enlarged pulmonary arteries, up to 3.2 cm.", "Pulmonary hypertension is possible."),
    ("Negative for active disease.", "Hyperlucent apices.", "No cavity."),
    ("XXXX opacity at the right base may be atelectasis.", "Pneumonia is not excluded."),
    ("Suture line in the right mid lung.", "Volume loss.", "Shift of the trachea to the right."),
    ("Soft tissues are normal.", "Breast implants.", "No rib lesion."),
    ("AP and lateral views were obtained.", "The patient is rotated.", "Inspiration is poor."),
    ("Port-A-Cath in the left chest wall.", "Tip in the lower SVC."),
    ("Azygos fissure, a normal variant.", "No mass.", "No infiltrate."),
    ("Right lower lobe airspace disease.", "Probable small parapneumonic effusion."),
    ("Clear lungs bilaterally.", "No evidence of TB.", "No acute findings."),
    ("The mass measures 4 cm.", "The node measures 12 mm.", "Both are new since XXXX."),
    ("S/p CABG.", "Median sternotomy wires.", "No CHF."),
    ("Catheter placed at St. XXXX hospital.", "Tip in the right atrium.", "Pull back 3 cm."),
    ("A 3-mm density projects over the 5th rib, ant. aspect.", "Likely a bone island."),
    ("CT chest w/o contrast is suggested (see no. 2).", "No urgent finding."),
    ("The patient has Hx of asthma, COPD, etc. and is a smoker.", "Hyperinflation is seen."),
    ("No change vs. prior of XXXX.", "XXXX, unchanged.", "Lines are stable."),
    ("Hardware from C5 to T2, approx. 12 cm long.", "Intact."),
)  # fmt: skip
# Numbered impressions, as they stand in one line and over several.
LISTS: tuple[tuple[str, ...], ...] = (
    ("No acute cardiopulmonary abnormality.", "Stable granuloma.", "Old rib fracture."),
    ("Cardiomegaly without edema.", "A 1.2 cm nodule in the left upper lobe.", "Scoliosis."),
    ("Right middle lobe pneumonia.", "Recommend follow-up to resolution in 4 to 6 weeks."),
    ("Emphysema.", "No acute disease.", "XXXX in place.", "Dr. XXXX was informed."),
)


def boundaries(sentences: tuple[str, ...]) -> set[int]:
    """Where sentences end, counted in characters that are no blanks."""
    lengths = (len("".join(sentence.split())) for sentence in sentences)
    return set(accumulate(lengths))


def test_of_150_sentences_98_percent_of_the_ends_are_right() -> None:
    cases = [(" ".join(sentences), sentences) for sentences in PARAGRAPHS]
    # Wrapped as archives wrap them.
    cases += [("\n ".join(" ".join(each).split()), each) for each in PARAGRAPHS[::5]]
    for listed in LISTS:
        numbered = [f"{number}. {each}" for number, each in enumerate(listed, start=1)]
        cases += [(" ".join(numbered), listed), ("\n".join(numbered), listed)]
    written = {each for sentences in (*PARAGRAPHS, *LISTS) for each in sentences}
    assert len(written) >= 150
    right = wanted = wrong = 0
    faults = []
    for text, expected in cases:
        found = split_sentences(text)
        ends, there = boundaries(expected), boundaries(found)
        right += len(ends & there)
        wanted += len(ends)
        wrong += len(there - ends)
        faults += [(expected, found)] if ends != there else []
    assert right / wanted >= 0.98, faults
    assert wrong / wanted <= 0.02, faults


@pytest.mark.parametrize("text", [" ".join(each) for each in PARAGRAPHS[:5]])
def test_nothing_of_a_paragraph_is_lost(text: str) -> None:
    assert " ".join(split_sentences(text)) == text
