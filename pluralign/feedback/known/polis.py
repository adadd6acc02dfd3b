from pathlib import Path

from pluralign.feedback.known.entry import Entry, File, github
from pluralign.feedback.polis import Polis
from pluralign.types import Feedback

SOURCE = "compdemocracy/openData", "0bc2ce0f32c673f68da20b57bce15c457aa787b5"
CONVERSATIONS = {
    "15-per-hour-seattle": (
        "Should the minimum wage be 15 dollars an hour? A conversation in Seattle",
        {
            "comments.csv": "23306ea084fbecf5e924e78da03b13cd3ad289e5f9b533b658b8caa59f5c1981",
            "participants-votes.csv": "324e6b36a08dd1020afd9483731a5fa6311cfe8229cc0b434201489d447f720d",
            "summary.csv": "7d7c5cb5baf3a4e2f81e041fd53eb12eac5837abf2a9c7b98c1cb0e03a4b2921",
        },
    ),
    "american-assembly.bowling-green": (
        "What matters to the residents of Bowling Green, Kentucky",
        {
            "comments.csv": "b5d72fbb1b15d66c624da51849aef3d5691358b6ec646035b9ca41c6b9f936f0",
            "participants-votes.csv": "63c6e30c36d9f5338516f3a0c77b08e3518c20b707b321e26c54cd6218a2ab4d",
            "summary.csv": "35cd93ea32bdc0926351ca093de981ef1af9043fc563d837ef082d509cb89141",
        },
    ),
    "brexit-consensus": (
        "Can there be consensus on Brexit?",
        {
            "comments.csv": "f9a341a6acadd8277458ed1ec1280508450dcc53f23cfdad9baf92a538bbd74c",
            "participants-votes.csv": "6b0c991962566a450735362208be1e1459485b57f5e13ba36501f3c8eabea349",
            "summary.csv": "1ace30cbb65cca8f090e95e06dae15c4c24bd1328f6bc803108b4facc03c7ebf",
        },
    ),
    "canadian-electoral-reform": (
        "Electoral reform in Canada",
        {
            "comments.csv": "f3fca647a6b13e218a454f06a9f8c985a0a7b63d64daf277b6f0916cf6d54a5d",
            "participants-votes.csv": "ea5fc95293685f1c28b9f649ca95a24010fc0893f436d8d4885e8f0e11e80bcb",
            "summary.csv": "75d5bf666fec281eb57a256d3179180b39e4da93d3d87b21b67afcf984d00333",
        },
    ),
    "vtaiwan.uberx": (
        "How Uber should be regulated in Taiwan (vTaiwan, in Chinese)",
        {
            "comments.csv": "719de1220b72e1e2e323109a528f2685ce6e2eea006f7d5fa02c607eccbfa2d8",
            "participants-votes.csv": "09b4e493145b9158efdff4953ee7d438aa1b4a42aae308a0d09cc36ffae956f0",
            "summary.csv": "7ea950e1f02a20be471a89628bf90fdd54a32edb3e5578195283a6d8934eb688",
        },
    ),
}


def read(folder: Path) -> Feedback:
    """Read one conversation."""
    return Polis(folder).load()


def _entry(name: str, title: str, sums: dict[str, str]) -> Entry:
    return Entry(
        name=f"polis-{name}",
        title=f"{title}: votes on each other's comments (Polis)",
        home="https://github.com/compdemocracy/openData",
        licence="CC BY 4.0",
        citation="Data was gathered using the Polis software (see compdemocracy.org/polis) and is sub-licensed under "
        "CC BY 4.0 with Attribution to The Computational Democracy Project.",
        mapping="Each vote (disagree, pass, agree) on a comment is a grade, as the source `polis` reads them: without "
        "times, and with the group that Polis put each person into. Votes on comments that moderators rejected are set "
        "aside.",
        files=tuple(File(file, github(*SOURCE, f"{name}/{file}"), sha256) for file, sha256 in sums.items()),
        read=read,
        folder=f"polis_opendata/{name}",
    )


POLIS = tuple(_entry(name, *about) for name, about in CONVERSATIONS.items())
