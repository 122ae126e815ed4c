//! Chapter 2, autodiff: slopes by walking back.
//!
//! Draws a function with the slopes that backward finds, walks through a graph of six nodes by hand, measures how good
//! finite differences are, counts what recomputation keeps, and fits a curve with nothing but gradients.

mod chapter;

use chapter::Chapter;
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, checkpoint, no_grad};
use imagen::picture::{Chart, Curve, Diagram, Tint, charts};
use imagen::random::{Purpose, normal};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Points = Vec<(f64, f64)>;

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch02");
    // First, so that its nodes have the numbers 1 to 6.
    a_walk(&chapter)?;
    a_function_and_its_slope(&chapter)?;
    finite_differences(&chapter)?;
    recomputation(&chapter)?;
    a_fit(&chapter)
}

fn leaf(value: f64) -> Tensor {
    Tensor::leaf(Array::from_f64([], &[value], DType::F64))
}

// ANCHOR: expression
/// y = (a b + a^2) b, with all that lies between.
fn expression(a: &Tensor, b: &Tensor) -> [Tensor; 4] {
    let c = a * b;
    let s = a.square();
    let d = &c + &s;
    let y = &d * b;
    [c, s, d, y]
}
// ANCHOR_END: expression

/// A node of the graph as the pictures show it: column and row, name, formula, value.
struct Shown {
    op: &'static str,
    parents: Vec<u64>,
    name: &'static str,
    formula: &'static str,
    value: f64,
    place: [f64; 2],
}

/// The op of a node once more, on new leaves: what it sends to its parents, and by which rule.
fn sends(node: &Shown, nodes: &BTreeMap<u64, Shown>, g: f64) -> Vec<(u64, String, f64)> {
    let parents: Vec<&Shown> = node.parents.iter().map(|id| &nodes[id]).collect();
    let leaves: Vec<Tensor> = parents.iter().map(|parent| leaf(parent.value)).collect();
    let (y, rules) = match (node.op, &leaves[..]) {
        ("mul", [a, b]) => (a * b, [format!("g·{}", parents[1].name), format!("g·{}", parents[0].name)]),
        ("add", [a, b]) => (a + b, ["g".into(), "g".into()]),
        ("square", [a]) => (a.square(), [format!("g·2{}", parents[0].name), String::new()]),
        _ => return Vec::new(),
    };
    let gradients = y.backward_with(Array::from_f64([], &[g], DType::F64));
    let value = |leaf| gradients.get(leaf).map_or(0.0, Array::item);
    node.parents.iter().zip(rules).zip(&leaves).map(|((&to, rule), leaf)| (to, rule, value(leaf))).collect()
}

fn a_walk(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let (a, b) = (leaf(2.0), leaf(3.0));
    let [c, s, d, y] = expression(&a, &b);
    let looks = [
        ("a", "a", &a, [0.0, 0.0]),
        ("b", "b", &b, [0.0, 2.0]),
        ("c", "a·b", &c, [1.0, 1.0]),
        ("s", "a²", &s, [1.0, 0.0]),
        ("d", "c + s", &d, [2.0, 0.5]),
        ("y", "d·b", &y, [3.0, 1.0]),
    ];
    println!("y = (a b + a^2) b at a = 2, b = 3 is {}. Its graph, newest node first:", y.item());
    let mut nodes = BTreeMap::new();
    for ((id, op, parents), (name, formula, tensor, place)) in y.history().into_iter().zip(looks.into_iter().rev()) {
        let from: Vec<String> = parents.iter().map(|parent| format!("#{parent}")).collect();
        println!("  #{id} {op:<7} {name} = {:<3} {}", tensor.item(), from.join(" "));
        nodes.insert(id, Shown { op, parents, name, formula, value: tensor.item(), place });
    }

    println!("The walk back:");
    let newest = *nodes.keys().last().ok_or("a graph without nodes")?;
    let (mut pending, mut complete, mut steps) = (BTreeMap::from([(newest, 1.0)]), HashMap::new(), Vec::new());
    while let Some((id, g)) = pending.pop_last() {
        complete.insert(id, g);
        let mut told = Vec::new();
        for (to, rule, value) in sends(&nodes[&id], &nodes, g) {
            let before = pending.get(&to).copied();
            let sum = before.unwrap_or(0.0) + value;
            pending.insert(to, sum);
            println!("  #{id} has {g:<3} and sends {rule} = {value} to #{to}, which now has {sum}");
            told.push(json!({ "to": to, "rule": rule, "value": value, "before": before, "sum": sum }));
        }
        steps.push(json!({ "take": id, "gradient": g, "sends": told }));
    }
    let gradients = y.backward();
    for (leaf, id) in [(&a, 1), (&b, 2)] {
        assert_eq!(gradients.get(leaf).map(Array::item), complete.get(&id).copied(), "the engine's walk and this one");
    }
    println!("So dy/da = {} and dy/db = {}, as b^2 + 2 a b and 2 a b + a^2 say.\n", complete[&1], complete[&2]);
    chapter.svg("graph.svg", &drawing(&nodes, &complete).svg())?;
    chapter.file("graph-walk-data.js", data(&nodes, &steps).as_bytes())
}

/// The graph with the slope of every arrow and the gradient of every node.
fn drawing(nodes: &BTreeMap<u64, Shown>, gradients: &HashMap<u64, f64>) -> Diagram {
    let mut drawing = Diagram::new(760.0, 308.0);
    let mut blocks = HashMap::new();
    let corner = |node: &Shown| [14.0 + 203.0 * node.place[0], 12.0 + 102.0 * node.place[1]];
    for (id, node) in nodes {
        let Shown { op, name, formula, value, .. } = node;
        let (head, tint) = match *op {
            "leaf" => (name.to_string(), Tint::Grey),
            _ => (format!("{name} = {formula}"), if *name == "y" { Tint::Orange } else { Tint::Blue }),
        };
        let lines = [head, format!("node {id}: {op}"), format!("value {value}"), format!("gradient {}", gradients[id])];
        let [x, y] = corner(node);
        blocks.insert(*id, drawing.block(x, y, 122.0, 76.0, &lines.each_ref().map(String::as_str), tint));
    }
    for (id, node) in nodes {
        for (parent, rule, slope) in sends(node, nodes, 1.0) {
            drawing.arrow(blocks[&parent], blocks[id], "");
            // The slope beside the middle of the arrow, as far from it as the words are long.
            let words = rule.strip_prefix("g·").map_or(slope.to_string(), |factor| format!("{factor} = {slope}"));
            let ([x0, y0], [x1, y1]) = (corner(&nodes[&parent]), corner(node));
            let (dx, dy) = ((x1 - x0) / (x1 - x0).hypot(y1 - y0), (y1 - y0) / (x1 - x0).hypot(y1 - y0));
            let away = (8.0 * dx + 3.5 * words.chars().count() as f64 * dy.abs()) * if dy > 0.0 { 1.0 } else { -1.0 };
            drawing.text((x0 + x1) / 2.0 + 61.0 - away * dy, (y0 + y1) / 2.0 + 42.0 + away * dx, &words);
        }
    }
    drawing
}

/// The same for the figure that one can step through.
fn data(nodes: &BTreeMap<u64, Shown>, steps: &[Value]) -> String {
    let nodes: Vec<Value> = nodes
        .iter()
        .map(|(id, node)| {
            let Shown { op, parents, name, formula, value, place } = node;
            json!({ "id": id, "op": op, "parents": parents, "name": name, "formula": formula, "value": value, "place": place })
        })
        .collect();
    format!(
        "// Written by examples/ch02_autodiff.rs.\nwindow.graphWalk = {:#};\n",
        json!({ "nodes": nodes, "steps": steps })
    )
}

fn a_function_and_its_slope(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let x = leaf(0.5);
    let (u, v, y) = (x.square(), x.square().sin(), x.square().sin().exp());
    println!("exp(sin(x^2)) at x = 0.5: u = {}, v = {:.6}, y = {:.6},", u.item(), v.item(), y.item());
    let slopes = [2.0 * x.item(), u.item().cos(), y.item()];
    println!("  slopes {} x {:.6} x {:.6} = {:.6},", slopes[0], slopes[1], slopes[2], slopes.iter().product::<f64>());
    println!("  and by backward {:.6}", y.backward().get(&x).map_or(f64::NAN, Array::item));

    // ANCHOR: all_slopes
    // No y depends on another's x, so one walk with ones as the cotangent finds the slopes at all points.
    let n = chapter.size(401, 11);
    let at: Vec<f64> = (0..n).map(|i| -2.0 + 4.0 * i as f64 / (n - 1) as f64).collect();
    let x = Tensor::leaf(Array::from_f64([n], &at, DType::F64));
    let y = x.square().sin().exp();
    let ys = y.to_f64();
    let slopes = y.sum_all().backward().take(&x).ok_or("no gradient")?.to_f64();
    // ANCHOR_END: all_slopes

    let curve = |values: &[f64]| -> Points { at.iter().copied().zip(values.iter().copied()).collect() };
    // A NaN leaves a gap between one tangent and the next.
    let touching = |share: usize| {
        let (i, reach) = (n * share / 40, 0.45 / (1.0 + 0.3 * slopes[n * share / 40].abs()));
        let point = |dx: f64| (at[i] + dx, ys[i] + slopes[i] * dx);
        [point(-reach), point(reach), (f64::NAN, f64::NAN)]
    };
    let chart = Chart::new("y = exp(sin(x²)) and its slope")
        .x("x")
        .curve(Curve::new("y", curve(&ys)))
        .curve(Curve::new("dy/dx at every point, by one walk back", curve(&slopes)))
        .curve(Curve::new("tangents with that slope", [5, 17, 25, 33].into_iter().flat_map(touching).collect()));
    chapter.svg("slope.svg", &chart.svg())
}

// ANCHOR: difference
/// Error of the central difference of sin at 1 with step h, where the sine is computed and rounded in `dtype`.
fn error(h: f64, dtype: DType) -> f64 {
    let sin = |x: f64| Tensor::from_f64([], &[x], dtype).sin().item();
    ((sin(1.0 + h) - sin(1.0 - h)) / (2.0 * h) - 1.0_f64.cos()).abs()
}
// ANCHOR_END: difference

fn finite_differences(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    println!("\nThe central difference of sin at 1, for steps that are powers of two:");
    let mut chart = Chart::new("Error of the central difference of sin at 1").x("step h").y("error").log_x().log_y();
    let (f, m) = (1.0_f64.sin(), 1.0_f64.cos());
    for (dtype, eps, smallest) in [(DType::F64, f64::EPSILON, 52), (DType::F32, f64::from(f32::EPSILON), 23)] {
        // An error of exactly 0 has no place on the axis.
        let steps = (1..=smallest).map(|k| 0.5_f64.powi(k));
        let points: Points = steps.map(|h| (h, error(h, dtype))).filter(|p| p.1 > 0.0).collect();
        let bound = |h: f64| h * h / 6.0 * m + eps * f / h;
        let (h, e) = points.iter().copied().fold((1.0, 1.0), |a, b| if b.1 < a.1 { b } else { a });
        let best = (3.0 * eps * f / m).cbrt();
        println!("  {dtype}: eps {eps:.1e}; predicted best step {best:.1e} with an error below {:.1e};", bound(best));
        println!("       measured: least error {e:.1e}, at h = {h:.1e}");
        chart = chart.dots(format!("measured, {dtype}"), points);
        let finer = (8..=8 * smallest).map(|k| 0.5_f64.powf(f64::from(k) / 8.0));
        chart = chart.curve(Curve::new(format!("bound, {dtype}"), finer.map(|h| (h, bound(h))).collect()));
    }
    chapter.svg("differences.svg", &chart.svg())
}

/// The nodes alive at once in the worst moment of backward, for a chain of `n` ops in segments of `s`.
fn kept(n: usize, s: usize) -> usize {
    let most = Arc::new(AtomicUsize::new(0));
    let mut y = leaf(0.5);
    for _ in 0..n / s {
        let most = most.clone();
        y = checkpoint(&[&y], move |inputs| {
            let end = (0..s).fold(inputs[0].clone(), |y, _| y.sin());
            // All that is behind this segment's end, without the leaf but with the checkpoint itself.
            most.fetch_max(end.history().len(), Ordering::Relaxed);
            end
        });
    }
    y.backward();
    most.load(Ordering::Relaxed)
}

fn recomputation(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let n: usize = chapter.size(1024, 64);
    let segments: Vec<usize> = (0..=n.ilog2()).map(|k| 1 << k).collect();
    let measured: Points = segments.iter().map(|&s| (s as f64, kept(n, s) as f64)).collect();
    let least = measured.iter().fold((0.0, f64::INFINITY), |a, &b| if b.1 < a.1 { b } else { a });
    println!("\nA chain of {n} ops keeps {n} nodes; in segments of {}, recomputed, at most {}", least.0, least.1);
    let law = (0..=80).map(|i| (n as f64).powf(f64::from(i) / 80.0)).map(|s| (s, n as f64 / s + s)).collect();
    let chart = Chart::new(format!("Nodes alive at once in backward, for a chain of {n} ops"))
        .x("ops a segment, s")
        .y("nodes")
        .log_x()
        .log_y()
        .curve(Curve::new("n / s + s", law))
        .dots("measured", measured);
    chapter.svg("recompute.svg", &chart.svg())
}

// ANCHOR: network
/// Sixteen bent lines, added up: tanh(x w1 + b1) w2 + b2.
fn network(x: &Tensor, [w1, b1, w2, b2]: &[Tensor; 4]) -> Tensor {
    &(&x.matmul(w1) + b1).tanh().matmul(w2) + b2
}

/// One step of gradient descent: every parameter goes a little against its gradient.
fn descend(parameters: &[Tensor; 4], loss: &Tensor, rate: f64) -> [Tensor; 4] {
    let gradients = loss.backward();
    parameters.each_ref().map(|p| match gradients.get(p) {
        Some(gradient) => Tensor::leaf(p.array() - &gradient.affine(rate, 0.0)),
        None => p.clone(),
    })
}
// ANCHOR_END: network

fn a_fit(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let n = 60;
    let noise = normal(2, Purpose::Test, 0, 0, n);
    let data: Points = (0..n).map(|i| -3.0 + 6.0 * i as f64 / (n - 1) as f64).zip(noise).collect();
    let data: Points = data.iter().map(|&(x, z)| (x, (2.0 * x).sin() * (-0.2 * x * x).exp() + 0.1 * z)).collect();
    let column = |values: Vec<f64>| Tensor::from_f64([values.len(), 1], &values, DType::F64);
    let x = column(data.iter().map(|p| p.0).collect());
    let y = column(data.iter().map(|p| p.1).collect());
    let random = |index, shape: [usize; 2], scale: f64| {
        let values = normal(3, Purpose::Test, 0, index, shape[0] * shape[1]);
        Tensor::leaf(Array::from_f64(shape, &values, DType::F64).affine(scale, 0.0))
    };
    let mut parameters =
        [random(0, [1, 16], 1.0), random(1, [1, 16], 1.0), random(2, [16, 1], 0.25), random(3, [1, 1], 0.25)];

    let steps = chapter.size(4000, 20);
    let (mut losses, mut fits) = (Vec::new(), Vec::new());
    println!("\nA curve with 49 parameters comes to {n} noisy points by gradient descent:");
    for step in 0..=steps {
        let loss = network(&x, &parameters).mse(&y);
        losses.push((f64::from(step), loss.item()));
        if [0, steps / 40, steps].contains(&step) {
            println!("  step {step}: mean squared error {:.4}", loss.item());
            let fit = no_grad(|| network(&x, &parameters)).to_f64();
            let points = data.iter().map(|p| p.0).zip(fit).collect();
            fits.push(Curve::new(step.to_string(), points));
        }
        parameters = descend(&parameters, &loss, 0.05);
    }
    let mut fit = Chart::new("The curve after so many steps").x("x").y("y").dots("data", data);
    for curve in fits {
        fit = fit.curve(curve);
    }
    let loss = Chart::new("Its error").x("step").y("mean squared error").log_y().curve(Curve::new("", losses));
    chapter.svg("fit.svg", &charts(&[fit, loss], 2))
}
