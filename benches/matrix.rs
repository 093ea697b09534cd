//! A 20 × 40 matrix from the facts of real stacks, and the same 800 hosts judged one by one: milliseconds of one thread, the
//! best of seven, both in one run. `cargo bench --bench matrix`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on has failed; it prints its figures"
)]

use cudalint::catalog::Catalog;
use cudalint::matrix::{Axes, matrix};
use cudalint::rules::Judge;
use cudalint::target::{Driver, Gpu, Host, resolve_gpu};
use cudalint::{facts, inventory};
use std::path::Path;
use std::time::{Duration, Instant};

fn best(mut work: impl FnMut()) -> Duration {
    (0..7)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed()
        })
        .min()
        .unwrap()
}

fn main() {
    let catalog = Catalog::built_in().unwrap();
    let newest = catalog.branches.iter().rev().take(20);
    let drivers: Vec<Driver> =
        newest.map(|b| Driver::parse(&b.branch.to_string(), &catalog).unwrap()).collect();
    let named = catalog.gpus.iter().filter_map(|g| g.aliases.first());
    let gpus: Vec<Gpu> = named.take(40).map(|a| resolve_gpu(a, &catalog).unwrap()).collect();
    let axes = Axes { drivers, gpus, host: Host::default() };
    println!("{:<42} {:>12} {:>12}", "stack", "matrix (ms)", "singly (ms)");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stacks");
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    for path in names.iter().filter(|p| p.to_string_lossy().ends_with(".facts.json.zst")) {
        let bytes = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
        let facts = facts::json::read(&bytes).unwrap();
        let inventory = inventory::build(&facts, &catalog);
        let whole = best(|| {
            assert_eq!(matrix(&Judge::new(&inventory, &catalog), &axes).rows.len(), 40);
        });
        let begin = Instant::now();
        for driver in &axes.drivers {
            for gpu in &axes.gpus {
                let answers = Judge::new(&inventory, &catalog).answers(Some(driver), Some(gpu), &axes.host);
                assert!(!answers.is_empty());
            }
        }
        let singly = begin.elapsed();
        let name = path.file_name().unwrap().to_string_lossy().replace(".facts.json.zst", "");
        println!("{name:<42} {:>12.1} {:>12.1}", whole.as_secs_f64() * 1e3, singly.as_secs_f64() * 1e3);
    }
}
