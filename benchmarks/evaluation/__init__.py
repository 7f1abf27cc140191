"""What the benchmark scripts share: data, hard cases, baselines, statistics, results on disk."""
