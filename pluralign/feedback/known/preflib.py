from functools import partial
from pathlib import Path

from pluralign.feedback.build import concatenate
from pluralign.feedback.known.entry import Entry, File, github
from pluralign.feedback.preflib import Preflib
from pluralign.types import Feedback

SOURCE = "fleverest/PrefLib-Data", "e70f12c3f1ee0dfa6f7974618522df0aa4ce9d91"
LIBRARY = "Nicholas Mattei and Toby Walsh, PrefLib: A Library of Preference Data, ADT 2013."


def read(names: tuple[str, ...], folder: Path) -> Feedback:
    """Read the elections of a folder as one; each has a prompt and voters of its own."""
    return concatenate(*(Preflib(folder / name).load() for name in names))


def _entry(
    name: str,
    title: str,
    folder: str,
    sums: dict[str, str],
    *,
    path: str | None,
    home: str,
    licence: str,
    cite: str = "",
    note: str = "",
) -> Entry:
    return Entry(
        name=f"preflib-{name}",
        title=f"{title} (PrefLib)",
        home=home,
        licence=licence,
        citation=f"{cite}{LIBRARY}",
        mapping="Each ballot is a choice (a ranking) or, for approvals, a grade of every alternative, as the source "
        "`preflib` reads them; every voter is an annotator with one ballot, so that nothing can be learned of what one "
        f"of them wants beyond it.{note}",
        files=tuple(
            File(file, github(*SOURCE, f"datasets/{path}/{file}") if path else None, sha256)
            for file, sha256 in sums.items()
        ),
        read=partial(read, tuple(sums)),
        folder=f"preflib/{folder}",
    )


PREFLIB = (
    _entry(
        "debian",
        "Eight elections of the Debian project, 2002 to 2012: rankings by about 400 developers each",
        "00002-debian",
        {
            "00002-00000001.soi": "11cbab2047f8d7327aa5cbe67ee10dfd72f0b51f4943626072cc5336462e841c",
            "00002-00000002.soi": "b4371742f4b08211ced0b3dcf9ade65f8fff5deb99cba3eae70dc327744dfcd5",
            "00002-00000003.soi": "ae8a83528355612b2b7fafecde345144e25099dd238805c3b16af6974cfd5a28",
            "00002-00000004.soi": "6d8c11516423ff165d9cd75157fd3a847efda1d0d5bdefb66be49be061117092",
            "00002-00000005.soi": "bf34fdd546e3293eff19552894e5f266a706df6d3fa6c12e5613ea7203e4cdd6",
            "00002-00000006.soi": "7f63ad502229ca57a2133d279fa524f3b7aa965d47c597341ff5e9ab61967309",
            "00002-00000007.soi": "e8d399be9fa2955a0bcaa18fd1148a6c4d41dfc71a734499ba68d707d5ecd808",
            "00002-00000008.soi": "21c6a44bc5e985600c3ac27a09706fde9a311ea9de4218b4d646c981810cce0c",
        },
        path="00002 - debian",
        home="https://www.preflib.org/dataset/00002",
        licence="GPL-3.0 (the repository)",
    ),
    _entry(
        "sushi",
        "Rankings of ten kinds of sushi by 5,000 people",
        "00014-sushi",
        {
            "00014-00000001.soc": "21dfffb9e30a868749da6b3eb06ce1f08205e2198869ccd7d772af1e186f3479",
        },
        path=None,
        home="https://www.kamishima.net/sushi/",
        licence="research only, no redistribution",
        cite="Toshihiro Kamishima, Nantonac Collaborative Filtering: Recommendation Based on Order Responses, KDD "
        "2003. ",
        note=" The file's names seem to be one off: by them egg would be everyone's favourite. The survey numbers "
        "kinds from 0, and its 0 (shrimp) is the file's 10, so that 7 is fatty tuna and 9 cucumber roll; what is read "
        "keeps the file's names.",
    ),
    _entry(
        "french-approval",
        "Approval ballots on 16 candidates in six districts, French presidential election of 2002",
        "00026-frenchapproval",
        {
            "00026-00000001.cat": "70c2cc2c928e5f6c05ac562e0760dbee20bc0ed422600e603dbc64fcf24f34fc",
            "00026-00000002.cat": "a2df96b73b7149e7b55e8c409a950adb6f89cfb8fe73e7fb0016b0e544f76f68",
            "00026-00000003.cat": "c0262937a660b9c8e2fb1ff3c8e0203837e70ad6aef1fc2b2c347e8315d4b78b",
            "00026-00000004.cat": "16c8d02a76443cbf7f8e815cfb2d2a4e4d3790cdac383e58c58c4a0922e609d7",
            "00026-00000005.cat": "f2c9b410c906125129833c338bf557c4e33019fbf71a4e8039af20d48af8672d",
            "00026-00000006.cat": "3b8a4a93666794363f756be6ff235e9b5c61e109419d29bf4821d8f4233dabaf",
        },
        path="00026 - frenchapproval",
        home="https://www.preflib.org/dataset/00026",
        licence="GPL-3.0 (the repository)",
        cite="Jean-François Laslier and Karine Van der Straeten, A Live Experiment on Approval Voting, "
        "Experimental Economics 11, 2008. ",
    ),
    _entry(
        "uk-labour",
        "Rankings of five candidates by 266 members of parliament, UK Labour leadership of 2010",
        "00030-uklabor",
        {
            "00030-00000001.soi": "17f513f7fb7c34444c480e2e58c16eb8a63f70041cf6125f6877437d562f86b0",
        },
        path="00030 - uklabor",
        home="https://www.preflib.org/dataset/00030",
        licence="GPL-3.0 (the repository)",
    ),
)
