"""Scripts for people: data, benchmarks, the manual."""
