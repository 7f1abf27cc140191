"""Write the table of benchmarks/README.md from the results on file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.results import RESULTS, markdown, read

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

Result = dict[str, Any]


def roi_crop(result: Result) -> str:
    """Speed of cropping next to the contenders."""
    parts = []
    for size, figures in result["sizes"].items():
        ratios = [
            f"{v['ratio']:.{0 if v['ratio'] > 10 else 2}f}x {name}"
            for name, v in figures["medrl_over"].items()
        ]
        parts.append(f"{size}^3: " + ", ".join(ratios))
    return "; ".join(parts)


def atlas(result: Result) -> str:
    """Errors of the baselines."""
    figures = result["holdout"]["errors"]
    seconds = result["holdout"]["cpu_s_per_registration_median"]
    parts = [f"{name} {error['mean_mm']:.2f} mm" for name, error in figures.items()]
    return ", ".join(parts) + f"; {seconds:.1f} CPU-s a registration"


def accuracy(result: Result) -> str:
    """Errors, and their share of the baseline's."""
    parts = []
    for name in ("as is", "corrupted"):
        figures = result["accuracy"][name]["all"]
        parts.append(
            f"{name}: mean {figures['mean_mm']:.2f} mm, "
            f"{figures['above_5_mm_percent']:.1f} % above 5 mm, "
            f"{figures['above_10_mm_percent']:.1f} % above 10 mm, max {figures['max_mm']:.1f} mm"
        )
    ratios = result.get("baselines", {}).get("mean_error_ratio", {})
    parts += [f"{ratio:.2f} of {name}" for name, ratio in ratios.items() if "affine" in name]
    return "; ".join(parts)


def presence(result: Result) -> str:
    """Presence in half heads."""
    return f"{result['presence']['halves']['all']['right_percent']:.1f} % right"


def confidence(result: Result) -> str:
    """Area under the curve, and calibration, on corrupted heads."""
    figures = result["confidence"]["corrupted"]
    low, high = figures["auc_95_percent_interval"]
    gap = figures["reliability"]["expected_calibration_error"]
    return f"AUC {figures['auc']:.3f} ({low:.2f} to {high:.2f}), calibration error {gap:.3f}"


def seconds(result: Result) -> str:
    """CPU time of a scan."""
    return f"{result['cpu_s_per_scan']['median']:.2f} CPU-s (median)"


def templates(result: Result) -> str:
    """Checks on the T1 templates."""
    told = [t for t in result["templates"].values() if "checks" in t]
    held, all_checks = sum(t["checks_held"] for t in told), sum(len(t["checks"]) for t in told)
    turned = [t["turned_copies"]["mean_mm"] for t in told]
    return (
        f"{held} of {all_checks} anatomical relations hold in {len(told)} templates; "
        f"turned copies agree to {min(turned):.1f}-{max(turned):.1f} mm"
    )


def ablation(result: Result) -> str:
    """Mean error of every arm, heads as they are."""
    arms = result["arms"].items()
    parts = [f"{name} {arm['with prior']['as is']['mean_mm']:.2f} mm" for name, arm in arms]
    return f"IXI {result['split']}, small budget: " + ", ".join(parts)


def one_click(result: Result) -> str:
    """Dice of the agent from one click, next to the network and the threshold."""
    parts = []
    for target, figures in result["figures"].items():
        values = figures["one_click"]
        others = ", ".join(
            f"{name} {values[name]['mean_dice']:.3f}" for name in ("network", "one-click threshold")
        )
        agent = values["agent"]
        parts.append(
            f"{target} {agent['mean_dice']:.3f} (worst {agent['worst_dice']:.2f}; {others})"
        )
    return "Dice: " + "; ".join(parts)


def corrections(result: Result) -> str:
    """Dice after each correction, and clicks to 0.90."""
    whole = result["figures"]["whole"]
    path = " ".join(f"{value:.3f}" for value in whole["dice_by_corrections"]["agent"])
    clicks = whole["clicks_to_goal"]["mean"]
    needed = ", ".join(f"{name} {value:.1f}" for name, value in clicks.items())
    return f"Dice {path}; clicks to 0.90: {needed}"


def latency(result: Result) -> str:
    """Milliseconds of an answer."""
    return "; ".join(
        f"{side}^3: {f['answer_ms']['median']:.0f} CPU-ms (median), walker alone "
        f"{f['walker_alone_ms']['median']:.0f}"
        for side, f in result["sizes"].items()
    )


def opening(result: Result) -> str:
    """Seconds until a scan is shown and searched, and memory."""
    return (
        f"{result['scan']}: {result['drawn_over_napari']:.2f} of napari's own time for the bare "
        f"array; agents walk after {result['agents_walk_s']:.1f} s; at most "
        f"{result['peak_memory_over_scan']:.1f} times the scan's memory"
    )


def clicks(result: Result) -> str:
    """Milliseconds from click to frame."""
    return "; ".join(
        f"{side}^3: {f['click_ms']['idle']['median']:.0f} ms (target {f['target_ms']:.0f})"
        for side, f in result["sizes"].items()
    )


def walker(result: Result) -> str:
    """Times scikit-image's speed."""
    return ", ".join(
        f"{name}: {case['times_scikit_image']:.1f}x" for name, case in result["cases"].items()
    )


def seed_ablation(result: Result) -> str:
    """Dice of every arm from one click."""
    arms = result["arms"].items()
    return "hippocampus val, small budget: " + ", ".join(
        f"{name} {arm['own_stop']:.3f}" for name, arm in arms
    )


def registration(result: Result) -> str:
    """Successes of every method, and for medrl the error, the time and the flags."""
    methods = {name: entry["summary"] for name, entry in result["methods"].items()}
    own = methods.pop("medrl", None)
    parts = []
    if own:
        totals = {
            band: [sum(count) for count in zip(*counts.values(), strict=True)]
            for band, counts in own["successes_of"].items()
        }
        bands = ", ".join(f"{band} {got}/{of}" for band, (got, of) in totals.items())
        flags = " and ".join(
            f"{own[f'{name}_flagged'][0]} of {own[f'{name}_flagged'][1]} {name}"
            for name in ("failures", "successes")
        )
        parts.append(
            f"medrl {own['successes']}/{own['cases']} ({bands}; median "
            f"{own['median_of_successes_mm']:.2f} mm, {own['cpu_s_mean']:.1f} CPU-s; flags {flags})"
        )
    parts += [f"{n} {f['successes']}/{f['cases']}" for n, f in methods.items()]
    return "; ".join(parts)


def registration_points(result: Result) -> str:
    """Median error of every method, rigid and affine."""
    return "; ".join(
        f"{name} "
        + ", ".join(
            f"{kind} {case['error_mm']:.2f} mm" if "error_mm" in case else f"{kind} failed"
            for kind, case in entry["cases"].items()
        )
        for name, entry in result["methods"].items()
    )


def registration_overlap(result: Result) -> str:
    """Mean Dice of every method."""
    return "Dice: " + ", ".join(
        f"{name} {entry['summary']['dice_mean']:.3f}"
        for name, entry in result["methods"].items()
        if "dice_mean" in entry.get("summary", {})
    )


def registration_confidence(result: Result) -> str:
    """What is flagged."""
    return ", ".join(
        f"flags {result[f'{kind}_flagged']} of {result[kind]} {kind} answers"
        for kind in ("wrong", "right")
    )


def registration_ablation(result: Result) -> str:
    """Errors of walks after learning, and of the search with one thing changed."""
    learning = ", ".join(f"{k} {v['error_mm']:.1f} mm" for k, v in result["learning"].items())
    search = ", ".join(
        f"{k}: {v['below_2_mm']}/{v['cases']}, {v['median_mm']:.2f} mm"
        for k, v in result["search"].items()
    )
    return f"coarse walks without lookahead: {learning}; search: {search}"


def batch_speed(result: Result) -> str:
    """Times the speed of the loop, and of one worker."""
    runs = ", ".join(f"{k} {v['scans_a_minute']:.0f}/min" for k, v in result["runs"].items())
    return (
        f"{result['over_loop']:.1f}x over the loop ({result['scans']} scans, start and all); two "
        f"workers {result['two_workers_over_one']:.2f}x one; {runs}"
    )


def batch_memory(result: Result) -> str:
    """Memory of a worker and how it grows."""
    return (
        f"{result['worker_mib']:.0f} MiB after 20 scans, {result['growth_percent']:+.1f} % at most "
        f"over {result['scans']}"
    )


def batch_holdout(result: Result) -> str:
    """Errors of the table of a batch next to the mean position, and what a kill cost."""
    return (
        f"{result['scans']} heads, {result['scans_per_minute']:.0f} a minute with "
        f"{result['workers']} workers, start included; {result['landmarks']['found']} of "
        f"{result['landmarks']['of']} landmarks, mean error {result['error_mm']['mean']:.2f} mm "
        f"(mean position {result['mean_position_error_mm']['mean']:.1f} mm); killed after "
        f"{result['killed']['done_before']} and resumed: the same rows"
    )


#: Claim, script, result and figure files, and how the result reads in one line.
ROWS: tuple[tuple[str, str, tuple[str, ...], Callable[[Result], str]], ...] = (
    ("Cropping is fast", "roi_crop.py", ("roi_crop.json",), roi_crop),
    ("What a plain atlas reaches", "atlas_baseline.py", ("atlas_baseline.json",), atlas),
    (
        "The model finds 25 landmarks in heads it has not seen, also corrupted ones",
        "landmark_accuracy.py",
        ("landmark_accuracy_holdout.json", "landmark_accuracy_holdout.png"),
        accuracy,
    ),
    (
        "It tells which landmarks are not in half a head",
        "landmark_accuracy.py",
        ("landmark_accuracy_holdout.json",),
        presence,
    ),
    (
        "Its confidence tells errors above 4 mm under corruption",
        "landmark_accuracy.py",
        ("landmark_accuracy_holdout.json",),
        confidence,
    ),
    (
        "It takes a fraction of a second on one thread",
        "landmark_accuracy.py",
        ("landmark_accuracy_holdout.json",),
        seconds,
    ),
    (
        "It finds the structures in templates from other scanners",
        "landmark_templates.py",
        ("landmark_templates.json", "landmark_templates.jpg"),
        templates,
    ),
    (
        "What each part of the recipe buys",
        "landmark_ablation.py",
        ("landmark_ablation.json",),
        ablation,
    ),
    (
        "The random walker answers sooner than scikit-image's",
        "random_walker.py",
        ("random_walker.json",),
        walker,
    ),
    (
        "One click segments a hippocampus",
        "seednet_accuracy.py",
        ("seednet_hippocampus-t1_holdout.json",),
        one_click,
    ),
    (
        "It answers to corrections",
        "seednet_accuracy.py",
        ("seednet_hippocampus-t1_holdout.json",),
        corrections,
    ),
    (
        "One click segments a sarcoma",
        "seednet_accuracy.py",
        ("seednet_sarcoma-pet-ct_holdout.json",),
        one_click,
    ),
    (
        "The answer to a seed comes while one clicks",
        "seednet_latency.py",
        ("seednet_latency.json",),
        latency,
    ),
    (
        "napari shows and searches a large scan at once (software rendering)",
        "napari_open.py",
        ("napari_open.json",),
        opening,
    ),
    (
        "napari shows the answer to a click (software rendering)",
        "napari_segment.py",
        ("napari_segment.json",),
        clicks,
    ),
    (
        "What each part of the seed agent's recipe buys",
        "seednet_ablation.py",
        ("seednet_ablation.json",),
        seed_ablation,
    ),
    (
        "Registration finds the pose of a template",
        "registration_accuracy.py",
        ("registration_template.json",),
        registration,
    ),
    (
        "It finds the pose of whole heads it has not seen",
        "registration_accuracy.py",
        ("registration_ixi-holdout.json",),
        registration,
    ),
    (
        "It registers real sequences of a patient to each other",
        "registration_accuracy.py",
        ("registration_ms.json",),
        registration,
    ),
    (
        "A lung at two dates",
        "registration_accuracy.py",
        ("registration_lung.json",),
        registration_points,
    ),
    (
        "Two subjects by an affine transform",
        "registration_accuracy.py",
        ("registration_ixi-affine.json",),
        registration_overlap,
    ),
    (
        "Its confidence tells wrong registrations from right ones",
        "registration_confidence.py",
        ("registration_confidence.json",),
        registration_confidence,
    ),
    (
        "What each part of the registration agents is worth",
        "registration_ablation.py",
        ("registration_ablation.json",),
        registration_ablation,
    ),
    (
        "A batch is faster than a shell loop, and two workers than one",
        "batch_speed.py",
        ("batch_speed.json",),
        batch_speed,
    ),
    (
        "A lab's run: the holdout heads, killed halfway and resumed",
        "batch_holdout.py",
        ("batch_holdout.json",),
        batch_holdout,
    ),
    (
        "A worker's memory stays flat",
        "batch_memory.py",
        ("batch_memory.json",),
        batch_memory,
    ),
)


def table() -> str:
    """The table: claim, script, figures, files."""
    rows: list[list[object]] = []
    for claim, script, files, line in ROWS:
        result = read(RESULTS / files[0])
        links = ", ".join(f"[{Path(f).suffix[1:]}](results/{f})" for f in files)
        measured = line(result) if result else "not measured yet"
        rows.append([claim, f"`{script}`", measured, links if result else ""])
    return markdown(["claim", "script", "measured", "files"], rows)


def main() -> None:
    """Replace what is between the marks in README.md."""
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
