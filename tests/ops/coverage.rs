//! Nothing is forgotten: the names in the source against the names in the table.

use crate::samples::samples;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Public methods of a tensor that make no graph: making, reading and walking one.
const NOT_OPS: [&str; 18] = [
    "constant",
    "leaf",
    "from_f64",
    "scalar",
    "constant_like",
    "detach",
    "array",
    "into_array",
    "shape",
    "numel",
    "dtype",
    "device",
    "to_f64",
    "item",
    "requires_grad",
    "history",
    "backward",
    "backward_with",
];

/// Ops that have no gradient by design; `golden_ops.rs` and the samples of `attention` use them.
const WITHOUT_GRADIENT: [&str; 1] = ["mask_to_bias"];

#[test]
fn every_op_of_the_source_is_in_the_table_and_the_other_way_round() {
    let source = names_in_source();
    let table: BTreeSet<String> = samples().iter().map(|sample| sample.op.to_string()).collect();
    let excluded: BTreeSet<String> = NOT_OPS.iter().chain(&WITHOUT_GRADIENT).map(|name| name.to_string()).collect();
    let unknown: Vec<_> = excluded.difference(&source).collect();
    assert!(unknown.is_empty(), "excluded here, but gone from src/autograd: {unknown:?}");
    let ops: BTreeSet<String> = source.difference(&excluded).cloned().collect();
    let missing: Vec<_> = ops.difference(&table).collect();
    assert!(missing.is_empty(), "ops without a sample in tests/ops/samples: {missing:?}");
    let stale: Vec<_> = table.difference(&ops).collect();
    assert!(stale.is_empty(), "samples of ops that src/autograd does not have: {stale:?}");
}

/// The scan finds each of the ways in which the source names an op.
#[test]
fn the_scan_sees_every_way_to_name_an_op() {
    let scanned = |text: &str| {
        let mut names = BTreeSet::new();
        scan(text, &mut names);
        names.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(scanned("    let y = op(\"matmul\", y)"), ["matmul"]);
    assert_eq!(scanned("        self.binary(\"add\", Binary::Add, other)"), ["add"]);
    assert_eq!(scanned("unary! {\n    /// -x\n    neg = Neg;\n    exp = Exp;\n}\n    a = b;"), ["exp", "neg"]);
    assert_eq!(scanned("impl Tensor {\n    pub fn sum(&self) -> Tensor {\n    }\n    fn kernels() {}\n}"), ["sum"]);
    assert_eq!(scanned("impl Gradients {\n    pub fn get(&self) {\n    }\n}"), [""; 0]);
    assert_eq!(scanned("pub fn concat(parts: &[&Tensor], axis: isize) -> Tensor {"), ["concat"]);
    assert_eq!(scanned("pub fn is_recording() -> bool {"), [""; 0]);
    let source = names_in_source();
    assert!(source.len() > 60, "only {} names found in src/autograd: {source:?}", source.len());
}

fn names_in_source() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/autograd");
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "rs") {
            scan(&fs::read_to_string(path).unwrap(), &mut names);
        }
    }
    names
}

/// Adds the names of ops in one source file, which rustfmt has laid out.
fn scan(text: &str, names: &mut BTreeSet<String>) {
    let (mut in_methods, mut in_unary) = (false, false);
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        match line {
            "impl Tensor {" => in_methods = true,
            "unary! {" => in_unary = true,
            "}" => (in_methods, in_unary) = (false, false),
            _ => {}
        }
        for call in ["op(\"", "self.binary(\""] {
            names.extend(line.split(call).skip(1).map(identifier));
        }
        if let Some(method) = line.strip_prefix("    pub fn ").filter(|_| in_methods) {
            names.insert(identifier(method));
        }
        if let Some(function) = line.strip_prefix("pub fn ").filter(|line| line.ends_with("-> Tensor {")) {
            names.insert(identifier(function));
        }
        if in_unary && line.ends_with(';') {
            names.insert(identifier(line.trim_start()));
        }
    }
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
