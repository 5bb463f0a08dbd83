"""The sentences of the generated corpus `clinic`. All are invented, and none is advice."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["QUESTIONS", "SLOTS", "WORDINGS"]

QUESTIONS: Mapping[str, str] = {
    "information": "What is {disease}?",
    "frequency": "How many people have {disease}?",
    "genetic changes": "Which genes are changed in {disease}?",
    "inheritance": "Does {disease} run in families?",
    "symptoms": "How do I notice {disease}?",
    "causes": "Where does {disease} come from?",
    "prevention": "How can {disease} be avoided?",
    "treatment": "How is {disease} treated?",
    "outlook": "What can somebody with {disease} expect?",
    "research": "What is being studied about {disease}?",
}

SLOTS: Mapping[str, tuple[str, ...]] = {
    "place": ("hands", "lungs", "skin", "joints", "stomach", "eyes", "ears", "back"),
    "drug": ("Palivor", "Restimab", "Oxendil", "Corvate", "Lumifen", "Tessarin"),
    "gene": ("KRV1", "DLN4", "TPM7", "ASX2", "BQR3", "OLF9"),
    "number": ("400", "2,000", "9,000", "30,000", "75,000", "200,000"),
    "time": ("weeks", "months", "a year", "two years", "a decade"),
    "age": ("children", "teenagers", "young adults", "older adults", "newborns"),
}

_PLAIN: Mapping[str, tuple[str, ...]] = {
    "information": (
        "{disease} is a condition of the {place} that is mostly seen in {age}.",
        "It belongs to the group of rare conditions of the {place}.",
        "The condition was first described in {age} a century ago.",
    ),
    "frequency": (
        "About 1 in {number} persons lives with the condition.",
        "Fewer than {number} cases are on record worldwide.",
        "It is counted more often in {age} than in anybody else.",
    ),
    "genetic changes": (
        "A mutation of the gene {gene} has been found in most families.",
        "{gene} carries the plan of a protein that is then missing.",
        "Two damaged copies of {gene} are needed for the full picture.",
    ),
    "inheritance": (
        "It passes from parent to child in a dominant pattern.",
        "Both parents are usually healthy carriers, a recessive pattern.",
        "Most cases are new and nobody else in the family is affected.",
    ),
    "symptoms": (
        "The first signs are pain and swelling of the {place}.",
        "Tiredness, fever and itching of the {place} are common complaints.",
        "Signs appear within {time} and come and go.",
    ),
    "causes": (
        "A germ that lives in soil triggers it after a small wound.",
        "It arises when the body attacks its own {place}.",
        "Long contact with dust of {time} is the usual trigger.",
    ),
    "treatment": (
        "Tablets of {drug} are taken daily for {time}.",
        "Doctors prescribe {drug}, and an operation on the {place} may help.",
        "A cure is not known, but {drug} relieves it.",
    ),
}

_FRIENDLY: Mapping[str, tuple[str, ...]] = {
    "information": (
        "If you have heard of {disease}, here is what it means: a condition of your {place}.",
        "You are not alone: many {age} live with this condition.",
        "Think of it as a rare condition that makes your {place} work less well.",
    ),
    "symptoms": (
        "You may notice pain or swelling in your {place}.",
        "Watch for fever and tiredness that last for {time}.",
        "Call your doctor about signs such as itching of your {place}.",
    ),
    "causes": (
        "You can catch the germ from soil or unwashed food.",
        "Dust at work is a frequent trigger.",
        "Sometimes your body attacks its own {place} without a trigger.",
    ),
    "prevention": (
        "Wash your hands, wear gloves and keep wounds covered.",
        "A yearly vaccine protects {age} well.",
        "Stay active, do not smoke, and have your {place} checked once in {time}.",
    ),
    "treatment": (
        "Your doctor can prescribe {drug} tablets for {time}.",
        "An operation may help if {drug} does not.",
        "Take {drug} with food, even when you feel well.",
    ),
}

_NEUROLOGY: Mapping[str, tuple[str, ...]] = {
    "information": (
        "{disease} denotes a degeneration of axons along the descending tracts.",
        "Clinically one sees spasticity with preserved cortical function in {age}.",
        "Lesions cluster around the ventricles and spare the cerebellum.",
    ),
    "treatment": (
        "Management rests on titrated infusions and supportive physiotherapy.",
        "Deep stimulation is reserved for refractory presentations.",
        "Therapy is palliative: baclomide titration, splints, speech exercises.",
    ),
    "outlook": (
        "The prognosis is guarded, with slow decline over {time}.",
        "Survivors retain ambulation, although relapses shorten life expectancy.",
        "Prognosis depends upon the age of onset; remission occurs in {age}.",
    ),
    "research": (
        "The institute sponsors trials of gene silencing in mouse models.",
        "Investigators recruit volunteers for a registry and imaging biomarkers.",
        "Grants at university laboratories fund studies of myelin repair.",
    ),
}

_ORGAN: Mapping[str, tuple[str, ...]] = {
    "information": (
        "{disease} means that cells of an organ thicken and lose their function.",
        "The organ enlarges, and its vessels narrow over {time}.",
        "Specialists grade it in four stages by the size of the organ.",
    ),
    "symptoms": (
        "Breathlessness on stairs and swollen ankles are what patients report first.",
        "Palpitations at night and loss of appetite follow.",
        "Early stages are silent until a routine scan shows it.",
    ),
    "causes": (
        "Raised pressure and excess salt strain the vessels.",
        "Smoking and obesity multiply the risk.",
        "A leaking valve or duct is behind one case in three.",
    ),
    "prevention": (
        "Cutting salt and losing weight halves the risk.",
        "Screening of siblings with ultrasound is recommended.",
        "Regular exercise keeps the vessels wide.",
    ),
    "treatment": (
        "A stent or a graft opens the vessel, followed by blood thinners.",
        "Radiation shrinks the mass before the surgeon removes it.",
        "Diuretics and a pump bridge the time to a transplant.",
    ),
    "outlook": (
        "Five-year survival exceeds ninety per cent at stage one.",
        "Recurrence is likeliest within {time} after surgery.",
        "Most patients return to work but need lifelong follow-up.",
    ),
    "research": (
        "Clinical trials compare two doses of an antibody against placebo.",
        "A consortium sequences tumour samples of volunteers.",
        "Scientists grow organoids to test compounds on them.",
    ),
}

WORDINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "plain": _PLAIN,
    "friendly": _FRIENDLY,
    "neurology": _NEUROLOGY,
    "organ": _ORGAN,
}
"""Kind of institute, then type of question, then the sentences that answer it."""
