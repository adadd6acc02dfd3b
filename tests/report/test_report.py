import functools
import html.parser
import io
import itertools
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from rich.console import Console

from pluralign import artifacts, report
from pluralign.errors import InputError
from pluralign.feedback import Population
from pluralign.report import figures
from pluralign.report.words import decimals, interval, number, percent
from pluralign.types import Choice, Evaluation, Feedback, Policy, RewardPosterior, Utilities

VOID = {"meta", "br", "link", "img", "hr", "input"}
RUNS = ("demo", "doubtful", "crowd", "api")
SECTIONS = ("headline", "annotators", "fit", "preferences", "rules", "agreement", "policies", "reproduce")


class Page(html.parser.HTMLParser):
    """Reads a page, insisting that every element is closed in order; keeps text by section, tags, links and ids."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.links, self.ids, self.errors = [], [], [], [], []
        self.text = dict.fromkeys((*SECTIONS, ""), "")
        self.section = ""
        self.feed(text)
        self.close()
        self.errors += [f"<{tag}> is never closed" for tag in self.stack]

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.links += [v for k, v in attributes.items() if k in ("src", "href", "xlink:href", "action", "data")]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "section":
            self.section = attributes["id"]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.errors.append(f"</{tag}> at {self.getpos()} closes something else")
        if tag == "section":
            self.section = ""

    def handle_data(self, data):
        if self.stack[-1:] != ["style"]:
            self.text[self.section] += data


@functools.cache
def read(run):
    """Write and read a report, once for each run."""
    written = report.write(run)
    return written, Page(written.html.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=RUNS)
def page(request):
    return request.param, *read(request.getfixturevalue(request.param))


def test_the_page_is_well_formed_and_loads_nothing(page):
    _, written, found = page
    assert found.errors == []
    assert len(found.ids) == len(set(found.ids))
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links)
    text = written.html.read_text(encoding="utf-8")
    assert not re.search(r"(@import|url\((?!#)|<script|<link|<iframe|<img)", text)
    assert written.html.stat().st_size < 3_000_000
    assert [a for t, a in found.tags if t == "section"] == [{"id": s} for s in SECTIONS]


@pytest.mark.parametrize("broken", ["<p><b>x</p></b>", "<div>", "</div>"])
def test_the_parser_of_these_tests_notices_what_is_not_well_formed(broken):
    assert Page(broken).errors


def test_json_is_strict_and_holds_what_the_report_returns(page):
    _, written, _ = page

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    held = json.loads(written.json.read_text(encoding="utf-8"), parse_constant=refuse)
    assert held == written.tables == artifacts.plain(written.tables)
    assert tuple(held["verdicts"]) == written.verdicts and len(written.verdicts) >= 3


def test_figures_stand_where_there_are_numbers_and_none_is_empty(page):
    name, _, found = page
    expected = {"demo": 9, "doubtful": 9, "crowd": 5, "api": 3}[name]
    assert sum(tag == "svg" for tag, _ in found.tags) == expected
    text = page[1].html.read_text(encoding="utf-8")
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert svg.count("<path") > 5 and svg.count("<text") > 3


def test_the_front_of_trained_policies_is_drawn_from_what_the_evaluation_says(demo, crowd):
    written, found = read(demo)
    assert {p["name"] for p in written.tables["policies"]["front"]["points"]} == {"utilitarian", "maximin"}
    assert "policies are on the front" in found.text["policies"]
    told, found = read(crowd)  # nothing was trained
    assert told.tables["policies"]["front"] is None and "on the front" not in found.text["policies"]


def test_the_fit_says_what_was_held_against_it(demo, crowd):
    written, found = read(demo)
    text = " ".join(found.text["fit"].split())
    assert "E-BFMI of the chains: 0.94, 1.02" in text
    assert "log loss of 0.5850 ± 0.0144 nats" in text  # 842.4 / 1440 and 20.7 / 1440
    assert "1,000 of 1,440 judgements" in text
    assert "<1\N{NO-BREAK SPACE}% of judgements have" in text or "<1 % of judgements have" in text
    assert "log lossann017301.2040.566 [0.410, 0.722]<0.001" in text
    assert "first shown winseveryone1,4400.5310.522 [0.500, 0.544]0.400" in text
    fit = written.tables["fit"]
    assert [row["who"] for row in fit["checks"]["annotator"]] == ["ann017", "ann002"]
    assert len(fit["calibration"]) == 2 and fit["loo"]["sampled"] == 1000
    _, plain = read(crowd)
    assert "Posterior predictive checks" not in plain.text["fit"] and "E-BFMI" not in plain.text["fit"]


def test_the_least_reliable_come_with_the_probability_that_they_answer_at_random(demo):
    written, found = read(demo)
    lapse = artifacts.load(demo / "posterior", RewardPosterior).rater["lapse"]
    rows = written.tables["reliability"]["lapses"]
    for row in rows:
        assert row["random"] == pytest.approx(np.mean([x > 0.5 for x in lapse[:, int(row["annotator"][3:])]]))
    assert rows[0]["random"] > 0.9 > 0.1 > rows[-1]["random"]
    assert "P(more than half at random)" in found.text["preferences"]


def by_hand(run, rule, utilities=None):
    """Welfare per group of reference and lottery, by loops over annotators, prompts and candidates."""
    chosen = artifacts.load(run / "choices" / rule, Choice)
    table = artifacts.load(run / "feedback", Feedback).annotators
    utilities = utilities or chosen.utilities
    value, mass = utilities.dense(), utilities.mass
    draws, voters, prompts, candidates = value.shape
    result = {}
    for group in sorted(set(table["group"])):
        before, after = np.zeros(draws), np.zeros(draws)
        total = sum(mass[v] for v in range(voters) if table["group"][v] == group)
        for v in range(voters):
            if table["group"][v] != group:
                continue
            for x in range(prompts):
                for y in range(candidates):
                    u = mass[v] / total * value[:, v, x, y] / prompts
                    before += u * chosen.utilities.reference[x, y]
                    after += u * chosen.lottery[x, y]
        result[group] = before, after
    return result


def test_welfare_of_groups_is_that_of_a_loop_over_annotators(demo):
    written, _ = read(demo)
    truth = artifacts.load(demo / "truth", Utilities)
    rows = {(r["rule"], r["group"]): r for r in written.tables["rules"]["welfare"]}
    assert len(rows) == 3 * 4
    for rule in ("nash", "maximin"):
        true = by_hand(demo, rule, truth)
        for group, (before, after) in by_hand(demo, rule).items():
            row = rows[rule, group]
            for name, draws in (("before", before), ("after", after), ("gain", after - before)):
                expected = [draws.mean(), *np.percentile(draws, [5, 95])]
                np.testing.assert_allclose([row[name][k] for k in ("mean", "low", "high")], expected, atol=1e-10)
            np.testing.assert_allclose(row["true_before"], true[group][0][0], atol=1e-10)
            np.testing.assert_allclose(row["true_gain"], true[group][1][0] - true[group][0][0], atol=1e-10)
            assert row["probability_of_gain"] == np.mean([a > b for a, b in zip(after, before, strict=True)])
        whole = sum(rows[rule, g]["share"] * rows[rule, g]["after"]["mean"] for g in ("brevity", "warmth", "facts"))
        np.testing.assert_allclose(rows[rule, "everyone"]["after"]["mean"], whole, atol=1e-10)


def test_annotators_who_do_not_count_make_no_group(demo, tmp_path):
    """A group in which nobody counts has no welfare at all."""
    run = shutil.copytree(demo, tmp_path / "run")
    chosen = artifacts.load(run / "choices/nash", Choice)
    mass = np.where(np.arange(48) < 28, 0, 1 / 20)  # all of the first group
    artifacts.save(replace(chosen, utilities=replace(chosen.utilities, mass=mass)), run / "choices/nash")
    rows = [r for r in report.write(run).tables["rules"]["welfare"] if r["rule"] == "nash"]
    assert {r["group"]: round(r["share"], 6) for r in rows} == {"warmth": 0.65, "facts": 0.35, "everyone": 1.0}


def test_losers_are_counted_one_by_one(demo):
    chosen = artifacts.load(demo / "choices/utilitarian", Choice)
    gain = []
    for v in range(48):
        value = chosen.utilities.dense()[:, v]
        gain.append([((chosen.lottery - chosen.utilities.reference) * u).sum() / len(u) for u in value])
    gain = np.array(gain)
    row = next(r for r in read(demo)[0].tables["rules"]["individuals"] if r["rule"] == "utilitarian")
    assert row["losers"] == sum(g.mean() < 0 for g in gain) > 0
    assert row["sure_losers"] == sum(sum(x < 0 for x in g) >= 95 for g in gain)
    lowest = sorted(g.mean() for g in gain)
    np.testing.assert_allclose(
        [row["worst_tenth_gain"], row["lowest_gain"]], [np.mean(lowest[:5]), lowest[0]], atol=1e-10
    )


def test_agreement_is_that_of_a_loop_over_prompts(demo):
    table = read(demo)[0].tables["agreement"]
    lotteries = [artifacts.load(demo / "choices" / name, Choice).lottery for name in table["rules"]]
    for a, p in enumerate(lotteries):
        for b, q in enumerate(lotteries):
            tv = [sum(max(0, pi - qi) for pi, qi in zip(x, y, strict=True)) for x, y in zip(p, q, strict=True)]
            same = [list(x).index(max(x)) == list(y).index(max(y)) for x, y in zip(p, q, strict=True)]
            np.testing.assert_allclose(table["tv"][a][b], np.mean(tv), atol=1e-12)
            assert table["same_top"][a][b] == np.mean(same)


def test_weights_of_groups_and_the_truth_beside_them(demo):
    table = read(demo)[0].tables["preferences"]
    posterior = artifacts.load(demo / "posterior", RewardPosterior)
    votes = artifacts.load(demo / "feedback", Feedback)
    members = [(a, 1 + a % 3) for a, g in enumerate(votes.annotators["group"]) if g == "facts"]  # with their weights
    row = next(r for r in table["weights"] if (r["feature"], r["group"]) == ("digits", "facts"))
    total = sum(w for _, w in members)
    draws = np.array([sum(w * float(posterior.weights[s, a, 0, 3]) for a, w in members) / total for s in range(100)])
    np.testing.assert_allclose([row["mean"], row["low"]], [draws.mean(), np.percentile(draws, 5)], atol=1e-6)
    np.testing.assert_allclose(row["true"], sum(w * votes.truth.weights[a, 3] for a, w in members) / total)


def test_many_features_show_the_largest(crowd):
    table = read(crowd)[0].tables["preferences"]
    posterior = artifacts.load(crowd / "posterior", RewardPosterior)
    mean = posterior.weights[:, :, 0].mean(1)  # everyone counts the same
    size = {name: abs(m) for name, m in zip(posterior.features, mean.mean(0) / mean.std(0), strict=True)}
    assert set(table["shown"]) == set(sorted(size, key=size.get)[-12:])
    assert len(table["weights"]) == 33


def test_the_least_reliable_are_named_and_those_simulated_as_careless_marked(demo):
    written, found = read(demo)
    rows = written.tables["reliability"]["lapses"]
    assert len(rows) == 48 and {r["annotator"] for r in rows if r["careless"]} == {
        "ann003",
        "ann020",
        "ann030",
        "ann045",
    }
    assert all(a["mean"] >= b["mean"] for a, b in itertools.pairwise(rows))
    assert found.text["preferences"].count("careless") >= 4 and rows[0]["annotator"] in found.text["preferences"]


def test_what_a_fit_has_wrong_stands_in_every_section_that_depends_on_it(doubtful, demo):
    written, found = read(doubtful)
    caveat = "R-hat of `spread` is 1.34"
    for section in ("headline", "fit", "preferences", "rules", "agreement", "policies"):
        assert caveat in found.text[section] and "†" in found.text[section], section
        assert section == "headline" or caveat in written.tables["caveats"][section][0]
    assert caveat in written.caveats[0] and "must not be trusted" in written.verdicts[0]
    text = written.html.read_text(encoding="utf-8")
    captions = re.findall(r'<(?:p class="caption"|figcaption)>.*?</(?:p|figcaption)>', text, re.DOTALL)
    marked = [c for c in captions if "†" in c]
    unmarked = [re.sub("<.*?>", "", c) for c in captions if "†" not in c]
    assert len(marked) >= 15
    assert all(c.startswith(("The judgements", "Annotators and", "Artifacts", "Package")) for c in unmarked), unmarked
    written, found = read(demo)
    assert not any("†" in text for text in found.text.values()) and written.caveats == ()


def test_what_a_training_has_wrong_is_no_doubt_about_the_rules(demo, tmp_path):
    run = shutil.copytree(demo, tmp_path / "run")
    trained = artifacts.load(run / "policies" / "maximin" / "policy", Policy)
    artifacts.save(replace(trained, caveats=("9 candidates were cut.",)), run / "policies" / "maximin" / "policy")
    written = report.write(run)
    page = Page(written.html.read_text(encoding="utf-8"))
    assert "9 candidates were cut." in page.text["policies"] and "†" in page.text["policies"]
    assert not any("†" in page.text[section] for section in SECTIONS if section != "policies")
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    console.print(report.summary_table(written))
    assert "9 candidates" in console.export_text()


def test_what_is_absent_is_named_with_its_reason(crowd, api):
    written, found = read(crowd)
    assert set(written.tables["absent"]) == {"features", "truth", "decisions", "policies", "config"}
    written, found = read(api)
    assert set(written.tables["absent"]) == {
        "features",
        "posterior",
        "truth",
        "decisions",
        "evaluation",
        "config",
    }
    for section, name in {
        "fit": "posterior",
        "preferences": "posterior",
        "rules": "truth",
        "agreement": "decisions",
        "policies": "evaluation",
    }.items():
        assert f"Not here: {name}. {written.tables['absent'][name]}" in found.text[section]
    assert "Python API" in found.text["reproduce"]
    assert "not known" in written.verdicts[0]


def test_a_run_with_nothing_but_choices_has_a_page(api, tmp_path):
    shutil.copytree(api / "choices", tmp_path / "run/choices")
    written, found = read(tmp_path / "run")
    assert found.errors == [] and "Not here: feedback" in found.text["annotators"]
    assert {r["group"] for r in written.tables["rules"]["welfare"]} == {"everyone"}


def test_the_first_section_tells_what_feedback_holds(demo):
    written, found = read(demo)
    text, s = found.text["annotators"], written.tables["annotators"]["summary"]
    total = sum(s["by_group"]["group"].values())
    assert s["by_form"] == {"comparison": total} and total == s["judgements"]
    for part in (
        f"comparison {total:,}",
        "Annotators and judgements by attribute",
        f"{s['alphas'][0]['alpha']:.2f}",
        "items never judged",
        "worth a second look",
        "personal data",
    ):
        assert part in text, part


def test_attributes_are_counted(demo):
    written, found = read(demo)
    table = written.tables["annotators"]
    votes = artifacts.load(demo / "feedback", Feedback)
    for row in table["demographics"]:
        of = [a for a, value in enumerate(votes.attribute(row["attribute"])) if value == row["category"]]
        judged = sum(who in of for who in votes.choices.annotator.tolist())
        assert (row["annotators"], row["judgements"]) == (len(of), judged)
        assert f"{len(of)} ({percent(len(of) / 48)}){judged:,} ({percent(row['judged'])})" in found.text["annotators"]
    assert {(r["attribute"], r["category"]) for r in table["demographics"]} >= {
        ("careless", "True"),
        ("group", "facts"),
    }
    assert (table["many_categories"], table["coverage"]) == ({}, None)


@pytest.mark.parametrize("raked", [False, True])
def test_a_declared_population_stands_beside_the_annotators(demo, tmp_path, raked):
    run = shutil.copytree(demo, tmp_path / "run")
    votes = artifacts.load(run / "feedback", Feedback)
    names = Dataset.from_dict({**votes.annotators.to_dict(), "town": [f"town {a}" for a in range(48)]})
    population = Population({"group": {"brevity": 0.4, "warmth": 0.4, "facts": 0.2}}, rake=raked)
    artifacts.save(population.weigh(replace(votes, annotators=names)), run / "feedback")
    written, found = read(run)
    text, table = found.text["annotators"], written.tables["annotators"]
    assert "groupbrevity40.0 %28 (58.3 %)840 (58.3 %)" in text
    assert "The attribute “town” has 48 values" in text
    shares = {row["group"]: row["share"] for row in table["groups"]}
    assert (shares == pytest.approx({"brevity": 0.4, "warmth": 0.4, "facts": 0.2})) == raked
    assert ("Annotators count by raked weights" in text) == raked
    verdict = "Annotators count by weights raked" if raked else "Annotators do not count by the declared population"
    assert verdict in found.text["headline"]


def test_texts_are_escaped_wherever_they_come_from(demo, tmp_path):
    nasty = "<script>alert('x')</script> & $x_1$ \N{HIRAGANA LETTER A}"
    run = shutil.copytree(demo, tmp_path / "run")
    votes = artifacts.load(run / "feedback", Feedback)
    names = [nasty if a == 3 else name for a, name in enumerate(votes.annotators["id"])]
    groups = [f"{nasty}{g}" for g in votes.annotators["group"]]
    table = Dataset.from_dict({"id": names, "weight": [1.0] * 48, "group": groups})
    artifacts.save(replace(votes, annotators=table), run / "feedback")
    evaluation = artifacts.load(run / "evaluation", Evaluation)
    samples = tuple(replace(s, prompt=nasty) for s in evaluation.samples)
    artifacts.save(replace(evaluation, samples=samples), run / "evaluation")
    artifacts.write_text(run / "experiment.yaml", f"# {nasty}\nseed: [\n")  # nor is it YAML
    written, found = read(run)
    assert found.errors == [] and not any(tag == "script" for tag, _ in found.tags)
    assert "<script" not in written.html.read_text(encoding="utf-8")
    for section in ("annotators", "preferences", "rules", "policies", "reproduce"):
        assert nasty in found.text[section], section


def test_samples_stand_side_by_side_and_an_empty_one_says_so(demo):
    _, found = read(demo)
    text = found.text["policies"]
    assert "(empty)" in text and "1. levers\n2. patch" in text
    assert text.count("base model") >= 3


def test_numbers_of_the_page_are_those_of_the_json(demo):
    written, found = read(demo)
    tables = written.tables
    for row in tables["rules"]["welfare"]:
        assert interval(row["gain"], 2, sign=True) in found.text["rules"]
    for row in tables["policies"]["welfare"]:
        assert interval(row["true_gain"], 2, sign=True) in found.text["policies"]
    for row in tables["scores"]:
        assert f"{row['log_loss']:.4f}" in found.text["fit"]
    assert "[+0.51, +0.70]" not in found.text["annotators"]
    for manifest in tables["reproduce"]["artifacts"].values():
        assert manifest["hash"] in found.text["reproduce"] and manifest["key"] in found.text["reproduce"]
    assert "feedback.seed: 7" in found.text["reproduce"]


def test_verdicts_say_who_gains_and_whether_that_is_sure(demo):
    written, _ = read(demo)
    rows = {(r["rule"], r["group"]): r for r in written.tables["rules"]["welfare"]}
    verdict = next(v for v in written.verdicts if v.startswith("utilitarian "))
    assert verdict.startswith(
        f"utilitarian gives most to brevity, {interval(rows['utilitarian', 'brevity']['gain'], sign=True)}"
    )
    assert "takes most from facts" in verdict and "interval excludes 0" in verdict
    unsure = next(v for v in written.verdicts if v.startswith("nash "))
    assert "least to facts" in unsure and "interval includes 0" in unsure
    best = written.tables["rules"]["best_for_worst_off"]
    level = {
        rule: min(rows[rule, g]["after"]["mean"] for g in ("brevity", "warmth", "facts"))
        for rule in ("maximin", "nash", "utilitarian")
    }
    assert best["rule"] == max(level, key=level.get) and best["welfare"]["mean"] == pytest.approx(max(level.values()))


def test_groups_are_those_that_were_asked_for(demo, tmp_path):
    run = shutil.copytree(demo, tmp_path / "run")
    tables = report.write(run, groups="careless").tables
    assert {r["group"]: r["voters"] for r in tables["rules"]["welfare"]} == {"False": 44, "True": 4, "everyone": 48}
    with pytest.raises(InputError, match=r"no attribute 'country'; they have \['group', 'careless'\]"):
        report.write(run, groups="country")


def test_voters_that_are_no_annotators_stand_for_themselves(demo, tmp_path):
    """A pooled model has one voter; the true gain of everyone together is still known."""
    run = shutil.copytree(demo, tmp_path / "run")
    shutil.rmtree(run / "posterior")
    for name in ("nash", "maximin", "utilitarian"):
        chosen = artifacts.load(run / "choices" / name, Choice)
        pooled = np.einsum("svxy,v->sxy", chosen.utilities.dense(), chosen.utilities.mass)[:, None]
        utilities = replace(chosen.utilities, value=pooled, mass=[1.0], voters=("the crowd",))
        artifacts.save(replace(chosen, utilities=utilities, weights=None), run / "choices" / name)
    tables = report.write(run).tables
    whole = {r["rule"]: r for r in read(demo)[0].tables["rules"]["welfare"] if r["group"] == "everyone"}
    assert [r["group"] for r in tables["rules"]["welfare"]] == ["the crowd"] * 3
    for row in tables["rules"]["welfare"]:
        np.testing.assert_allclose(row["true_gain"], whole[row["rule"]]["true_gain"], atol=1e-10)
        np.testing.assert_allclose(row["gain"]["mean"], whole[row["rule"]]["gain"]["mean"], atol=1e-6)
    assert tables["rules"]["individuals"] == []


@pytest.mark.parametrize("name", RUNS)
def test_the_table_of_the_terminal_fits_80_columns(name, request):
    written, _ = read(request.getfixturevalue(name))
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    console.print(report.summary_table(written))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for row in written.tables["rules"]["welfare"] + written.tables["policies"]["welfare"]:
        assert row["group"] in text and f"{row['gain']['mean']:+.2f}".replace("-", "\N{MINUS SIGN}") in text
    assert "…" not in text
    assert ("R-hat of `spread`" in text) == (name == "doubtful")


def test_a_folder_that_is_no_run_is_refused(tmp_path, demo):
    with pytest.raises(InputError, match="is no folder"):
        report.write(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no choices"):
        report.write(tmp_path)
    with pytest.raises(InputError, match="no choices"):
        report.write(demo / "choices")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_artifact_is_refused(demo, tmp_path):
    run = shutil.copytree(demo, tmp_path / "run")
    with (run / "truth/arrays.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="was changed"):
        report.write(run)


def test_the_same_run_makes_the_same_files(demo):
    first = [p.read_bytes() for p in (read(demo)[0].html, read(demo)[0].json)]
    again = report.write(demo)
    assert first == [again.html.read_bytes(), again.json.read_bytes()]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.00412, "\N{MINUS SIGN}0.0041"),
        (3e-9, "3.0e\N{MINUS SIGN}9"),
        (12345.6, "12,346"),
        (0.1234, "0.123"),
        (None, "n/a"),
    ],
)
def test_numbers_in_words(value, text):
    assert number(value) == text


def test_intervals_show_what_tells_their_ends_apart():
    assert interval({"mean": -0.001, "low": -0.11, "high": 0.108}, sign=True) == "0.00 [\N{MINUS SIGN}0.11, +0.11]"
    assert decimals([{"low": 0.0, "high": 0.02}]) == 3 and decimals([{"low": -300.0, "high": 300.0}]) == 0
    assert [percent(p) for p in (0, 0.001, 0.5, 0.999, 1.0)] == ["0 %", "<1 %", "50 %", ">99 %", "100 %"]


def test_figures_thin_out_many_marks_and_keep_the_ends():
    values = np.arange(10_000)
    thin = figures._thin(values)
    assert len(thin) == figures.MANY and thin[0] == 0 and thin[-1] == 9_999 and (np.diff(thin) > 0).all()
