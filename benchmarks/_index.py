"""Write the table of benchmarks/README.md from the claims in the results on file."""

from __future__ import annotations

from pathlib import Path

from evaluation.results import RESULTS

from medrl.evaluation import Table, read_json

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

#: The results in the order of the table; files of the same name with another ending go with them.
ORDER = (
    "roi_crop",
    "landmark_accuracy_holdout",
    "landmark_contrasts_holdout",
    "landmark_afids",
    "landmark_skulls_holdout",
    "landmark_parts_holdout",
    "landmark_talking",
    "landmark_templates",
    "landmark_ablation",
    "random_walker",
    "seednet_hippocampus-t1_holdout",
    "seednet_sarcoma-pet-ct_holdout",
    "seednet_latency",
    "napari_open",
    "napari_segment",
    "seednet_ablation",
    "registration_template",
    "registration_ixi-holdout",
    "registration_ms",
    "registration_lung",
    "registration_ixi-affine",
    "registration_ixi-astray",
    "registration_ablation",
    "localization_accuracy_holdout",
    "localization_accuracy_brain_holdout",
    "localization_accuracy_brain_7_scans",
    "localization_accuracy_sarcoma_holdout",
    "localization_ablation",
    "cutting_accuracy_holdout",
    "cutting_films",
    "tracking_objects",
    "tracking_visits",
    "trust",
    "batch_speed",
    "batch_holdout",
    "batch_memory",
    "start_time",
    "gpu",
    "before_after",
)


def table() -> str:
    """The table: claim, script, figures, files."""
    rows: list[list[object]] = []
    for name in ORDER:
        result = read_json(RESULTS / f"{name}.json")
        files = sorted(RESULTS.glob(f"{name}.*"))
        links = ", ".join(f"[{file.suffix[1:]}](results/{file.name})" for file in files)
        for claim, measured in result.get("claims", {}).items():
            rows.append([claim, f"`{result['script']}`", measured, links])
    return Table("", ["claim", "script", "measured", "files"], rows).markdown()


def main() -> None:
    """Replace what is between the marks in README.md."""
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
