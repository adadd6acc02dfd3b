"""The command line: thin. Every command is a few calls that a Python program could make."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from pluralign.errors import InputError, PluralignError

console = Console()


@dataclass(frozen=True)
class Run:
    """Carry an experiment from judgements to trained policies and a report.

    Stages whose inputs have not changed are not run again; a run that was killed goes on where it was.
    Any key of the config takes a new value on the command line: --inference.draws 200 --policy.steps 50

    Attributes:
        config: YAML file of the experiment.
        out: run folder; default: runs/<name of the config>.
    """

    config: tyro.conf.Positional[Path]
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None

    def __call__(self, overrides: dict[str, str]) -> None:
        """Carry the command out."""
        from pluralign import pipeline, report
        from pluralign.config import load

        folder = self.out or Path("runs") / self.config.stem
        experiment = load(self.config, overrides)
        written = pipeline.run(experiment, folder, console)
        console.print(report.summary_table(written))
        console.print(f"Report: [bold]{folder / 'report.html'}[/bold]  (every number: {folder / 'report.json'})")


@dataclass(frozen=True)
class Check:
    """Read a config and its data and describe them; nothing is inferred or trained.

    Attributes:
        config: YAML file of the experiment; any key takes a new value on the command line, as for `run`.
    """

    config: tyro.conf.Positional[Path]

    def __call__(self, overrides: dict[str, str]) -> None:
        """Carry the command out."""
        from pluralign import feedback
        from pluralign.config import dump, load

        experiment = load(self.config, overrides)
        console.print(dump(experiment), highlight=False, markup=False)
        votes = experiment.feedback.load()
        console.print(feedback.describe(votes))
        if (population := experiment.population) is not None:
            console.print(feedback.coverage(votes, population.margins, used=population.rake))
            population.weigh(votes)  # an error if there are no such weights, once it is seen why


@dataclass(frozen=True)
class Compare:
    """Apply every rule to the posterior of a finished run: what each gives to whom, and how sure its decisions are.

    Writes a figure (compare.svg, compare.png) and every number (compare.json).

    Attributes:
        run: folder of the run.
        rules: "all" are those of the experiment and every other that has no number to be set.
        enough: the data decide on a prompt if some candidate wins with at least this probability; default: as the run.
        out: folder for figure and numbers; default: the run's.
    """

    run: tyro.conf.Positional[Path]
    rules: Literal["all", "experiment"] = "all"
    enough: float | None = None
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None

    def __call__(self, overrides: dict[str, str]) -> None:
        """Carry the command out."""
        from pluralign import comparison

        _refuse(overrides)
        found = comparison.compare(self.run, self.rules, self.enough, self.out)
        console.print(found)
        console.print(f"Figure: [bold]{found.figures[0]}[/bold]  (every number: {found.json})")


@dataclass(frozen=True)
class Report:
    """Write the report of a run folder again.

    Attributes:
        run: folder of the run.
        groups: annotator attribute by which the report tells who gains and who loses.
    """

    run: tyro.conf.Positional[Path]
    groups: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None

    def __call__(self, overrides: dict[str, str]) -> None:
        """Carry the command out."""
        from pluralign import report

        _refuse(overrides)
        console.print(report.summary_table(report.write(self.run, groups=self.groups)))
        console.print(f"Report: [bold]{self.run / 'report.html'}[/bold]")


@dataclass(frozen=True)
class List:
    """List the published data sets that are known by name."""

    def __call__(self) -> None:
        """Carry the command out."""
        from pluralign.feedback import known

        console.print(known.listing())


@dataclass(frozen=True)
class Get:
    """Download a data set, or check the files of one that is there.

    Without --folder it is looked for, and goes to, the folder PLURALIGN_DATA if that is set, else the user's cache.

    Attributes:
        name: of the data set.
        folder: where its files lie or shall lie.
    """

    name: tyro.conf.Positional[str]
    folder: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None

    def __call__(self) -> None:
        """Carry the command out."""
        from pluralign.feedback import known

        entry = known.entry(self.name)
        folder = entry.get(self.folder, console)
        for file in entry.checked(folder):
            console.print(f"{folder / file['name']}: {file['standing']}", markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Describe:
    """Tell what a data set is, its licence, what to cite and how it is read; and what is in it, if it is there.

    Attributes:
        name: of the data set.
        folder: where its files lie.
    """

    name: tyro.conf.Positional[str]
    folder: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None

    def __call__(self) -> None:
        """Carry the command out."""
        from pluralign import feedback
        from pluralign.feedback import known

        entry = known.entry(self.name)
        console.print(entry.table())
        if self.folder or entry.where():
            console.print(feedback.describe(feedback.Known(self.name, self.folder).load()))


@dataclass(frozen=True)
class Data:
    """Published data sets by name: list them, get one, describe one.

    Attributes:
        do: what to do.
    """

    do: (
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Get, tyro.conf.subcommand("get")]
        | Annotated[Describe, tyro.conf.subcommand("describe")]
    )

    def __call__(self, overrides: dict[str, str]) -> None:
        """Carry the command out."""
        _refuse(overrides)
        self.do()


@dataclass(frozen=True)
class Power:
    """Find out how many annotators and judgements a claim needs, by simulating the community of a config.

    The default grid, 9 points of 20 communities each, takes about 12 minutes of CPU time on configs/quickstart.yaml.

    Attributes:
        config: YAML file of the experiment; any key takes a new value on the command line, as for `run`.
        more: group and rule that are claimed to go with more gain, such as guardians:maximin.
        less: group and rule that are claimed to go with less, such as guardians:utilitarian.
        annotators: sizes of the community to try.
        judgements: numbers of judgements by each annotator to try.
        repeats: communities to simulate for each of these pairs.
        alpha: the claim is stated if its posterior probability exceeds 1 - alpha.
    """

    config: tyro.conf.Positional[Path]
    more: str
    less: str
    annotators: tuple[int, ...] = (12, 24, 48)
    judgements: tuple[int, ...] = (10, 20, 40)
    repeats: int = 20
    alpha: float = 0.05

    def __call__(self, overrides: dict[str, str]) -> None:
        """Carry the command out."""
        from pluralign import power
        from pluralign.config import load

        claim = power.Claim.parse(self.more, self.less)
        grid = {"annotators": self.annotators, "judgements": self.judgements, "repeats": self.repeats}
        console.print(power.analyse(load(self.config, overrides), claim, alpha=self.alpha, **grid))


Command = (
    Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Power, tyro.conf.subcommand("power")]
)


def overrides_of(words: list[str]) -> dict[str, str]:
    """Return `--key value` and `--key=value` words as a mapping of dotted keys.

    Raises:
        InputError: a word is no option, or an option has no value.
    """
    found, rest = {}, list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise InputError(f"do not know what to do with {word!r}; new values are given as --key value.")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise InputError(f"--{key} needs a value.")
            value = rest.pop(0)
        found[key] = value
    return found


def _refuse(overrides: dict[str, str]) -> None:
    if overrides:
        raise InputError(f"this command takes no --{next(iter(overrides))}; see `pluralign --help`.")


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `pluralign` command."""
    try:
        command, words = tyro.cli(
            Command,
            prog="pluralign",
            description="From judgements of people who disagree to policies, and who gains and loses under each rule.",
            args=arguments,
            return_unknown_args=True,
            config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
        )
        command(overrides_of(words))
    except PluralignError as error:
        Console(stderr=True).print(
            f"[bold red]{type(error).__name__}[/bold red]: {escape(str(error))}", highlight=False
        )
        sys.exit(2 if isinstance(error, InputError) else 1)
