"""What the models of built-in recipes read and say, as a site hears it of their process."""

from __future__ import annotations

from daitn.learning.consultant import Consultant
from daitn.objects.abilities import Abilities, Need, Reads, Says


async def test_a_table_reads_records_and_a_language_model_text() -> None:
    consultant = Consultant(("classifier", "causal-lm"))
    await consultant.start()
    try:
        table, speaker = (consultant.facts(name).abilities for name in consultant.recipes)
    finally:
        await consultant.close()
    assert table == Abilities(
        reads=(Reads.TABLE,), says=(Says.CLASS,), tools=False, json_schema=False
    )
    assert [need for need in Need if not speaker.meets(need)] == [
        Need.IMAGE,
        Need.AUDIO,
        Need.VIDEO,
        Need.FILE,
        Need.VOICE,
        Need.TOOLS,
        Need.JSON,
    ]
