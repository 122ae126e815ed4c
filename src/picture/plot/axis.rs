//! An axis: where a value stands, and which values get a label.

/// A linear or logarithmic axis.
pub(super) struct Axis {
    /// Whether distances are those of the logarithms.
    pub log: bool,
    /// The ends, as logarithms (base 10) if `log`.
    ends: [f64; 2],
    /// The pixels of the ends.
    pixels: [f64; 2],
}

impl Axis {
    /// Whether `value` has a place on an axis. Beyond 1e300 differences would overflow.
    pub fn takes(value: f64, log: bool) -> bool {
        value.abs() < 1e300 && (!log || value >= f64::MIN_POSITIVE)
    }

    /// The axis on which all of `values` have a place, with `margin` of its length free at both ends; `None` without
    /// values.
    pub fn around(values: impl Iterator<Item = f64>, log: bool, pixels: [f64; 2], margin: f64) -> Option<Axis> {
        let values = values.map(|v| if log { v.log10() } else { v });
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return None;
        }
        // An axis that begins just above 0, as one of steps does, may as well begin there.
        let low = if !log && low > 0.0 && low < 0.05 * high { 0.0 } else { low };
        let size = low.abs().max(high.abs());
        // A span lost in rounding has no ticks.
        let free = match high - low {
            span if span > 1e-9 * size => margin * span,
            _ if log => 0.2,
            _ if size == 0.0 => 1.0,
            _ => 0.1 * size,
        };
        Some(Axis { log, ends: [low - free, high + free], pixels })
    }

    /// Widens the ends of one of two linear axes, around their middle, until a unit is as long on both.
    pub fn make_equal(x: &mut Axis, y: &mut Axis) {
        let scale = |axis: &Axis| (axis.ends[1] - axis.ends[0]) / (axis.pixels[1] - axis.pixels[0]).abs();
        let coarser = scale(x).max(scale(y));
        for axis in [x, y] {
            let middle = (axis.ends[0] + axis.ends[1]) / 2.0;
            let half = coarser * (axis.pixels[1] - axis.pixels[0]).abs() / 2.0;
            axis.ends = [middle - half, middle + half];
        }
    }

    /// The pixel that bars stand on: of 0, or the end nearest to it.
    pub fn ground(&self) -> f64 {
        if self.log { self.pixels[0] } else { self.place(0.0f64.clamp(self.ends[0], self.ends[1])) }
    }

    /// The pixel of a value.
    pub fn at(&self, value: f64) -> f64 {
        self.place(if self.log { value.log10() } else { value })
    }

    fn place(&self, scaled: f64) -> f64 {
        let [low, high] = self.ends;
        self.pixels[0] + (scaled - low) / (high - low) * (self.pixels[1] - self.pixels[0])
    }

    /// About `count` round values with their pixels and labels.
    pub fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let values = if self.log { self.log_ticks(count) } else { linear_ticks(self.ends, count) };
        values.into_iter().map(|(value, label)| (self.at(value), label)).collect()
    }

    fn log_ticks(&self, count: usize) -> Vec<(f64, String)> {
        let [low, high] = self.ends;
        let decades = (low.floor() as i32)..=(high.ceil() as i32);
        let every = (((high - low) / count as f64).round() as i32).max(1);
        for mantissas in [&[1][..], &[1, 3], &[1, 2, 5], &[1, 2, 3, 4, 6, 8]] {
            let ticks: Vec<(f64, String)> = decades
                .clone()
                .filter(|exponent| exponent.rem_euclid(every) == 0)
                .flat_map(|exponent| mantissas.iter().map(move |&m| (m, exponent)))
                .filter(|&(m, exponent)| {
                    let scaled = f64::from(m).log10() + f64::from(exponent);
                    scaled >= low - 1e-9 && scaled <= high + 1e-9
                })
                .map(|(m, exponent)| (f64::from(m) * 10f64.powi(exponent), log_label(m, exponent)))
                .collect();
            // Between decades that are left out, no values are told.
            if ticks.len() >= 4.min(count) || every > 1 {
                return ticks;
            }
        }
        linear_ticks(self.ends.map(|end| 10f64.powf(end)), count)
    }
}

fn log_label(mantissa: i32, exponent: i32) -> String {
    if (-3..=3).contains(&exponent) {
        return format!("{:.*}", exponent.min(0).unsigned_abs() as usize, f64::from(mantissa) * 10f64.powi(exponent));
    }
    let raised: String = exponent.to_string().chars().map(superscript).collect();
    if mantissa == 1 { format!("10{raised}") } else { format!("{mantissa}·10{raised}") }
}

fn superscript(c: char) -> char {
    match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '0' | '4'..='9' => char::from_u32('⁰' as u32 + c as u32 - '0' as u32).unwrap_or(c),
        other => other,
    }
}

/// Multiples of 1, 2 or 5 times a power of ten in [low, high], at most `count` or one more.
fn linear_ticks([low, high]: [f64; 2], count: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / count as f64;
    let exponent = rough.log10().floor();
    let power = 10f64.powf(exponent);
    let step = [1.0, 2.0, 5.0].into_iter().map(|m| m * power).find(|&step| step >= rough).unwrap_or(10.0 * power);
    let slack = 1e-9 * (high - low);
    let first = ((low - slack) / step).ceil();
    let ticks = (0..=count + 1).map(|i| (first + i as f64) * step).take_while(|&v| v <= high + slack);
    ticks.map(|v| (v, linear_label(v, step, low.abs().max(high.abs())))).collect()
}

/// A label that tells neighbours `step` apart, the same way along an axis whose largest value is `size`.
fn linear_label(value: f64, step: f64, size: f64) -> String {
    let value = if value.abs() < step / 2.0 { 0.0 } else { value };
    let decimals = |step: f64| (-(step * 1.000_001).log10().floor()).max(0.0) as usize;
    match () {
        () if value == 0.0 => "0".into(),
        () if !(1e-4..1e10).contains(&size) => {
            format!("{value:.*e}", ((size / step).log10().ceil().max(0.0) as usize).min(15))
        }
        () if size >= 1e7 => format!("{:.*}M", decimals(step / 1e6), value / 1e6),
        () if size >= 1e4 => format!("{:.*}k", decimals(step / 1e3), value / 1e3),
        () => format!("{value:.*}", decimals(step)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: [f64; 2], log: bool) -> Vec<String> {
        let axis = Axis::around(values.into_iter(), log, [0.0, 100.0], 0.0).unwrap();
        axis.ticks(6).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn labels_are_round_and_short() {
        assert_eq!(labels([0.0, 1.0], false), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels([-5.0, 5.0], false), ["-4", "-2", "0", "2", "4"]);
        assert_eq!(labels([0.0, 20_000.0], false), ["0", "5k", "10k", "15k", "20k"]);
        assert_eq!(labels([0.0, 1.2e7], false), ["0", "2M", "4M", "6M", "8M", "10M", "12M"]);
        assert_eq!(labels([0.02, 1.0], true), ["0.03", "0.1", "0.3", "1"].map(String::from));
        assert_eq!(labels([1.0, 4000.0], false), ["0", "1000", "2000", "3000", "4000"]);
        assert_eq!(labels([1e-12, 1.0], true), ["10⁻¹²", "10⁻¹⁰", "10⁻⁸", "10⁻⁶", "10⁻⁴", "0.01", "1"]);
        assert_eq!(labels([1e-6, 1e-3], true), ["10⁻⁶", "10⁻⁵", "10⁻⁴", "0.001"]);
        assert_eq!(labels([0.5, 0.55], true), ["0.50", "0.51", "0.52", "0.53", "0.54", "0.55"]);
    }

    #[test]
    fn any_range_has_some_ticks_in_order_and_on_the_axis() {
        let ends = [0.0, 1e-300, 1e-12, 3e-5, 0.4999, 0.5, 7.0, 1e4 + 1.0, 9.9e9, 1e15, 9e299];
        for (log, low, high) in
            ends.iter().flat_map(|&l| ends.iter().flat_map(move |&h| [(false, l, h), (true, l, h), (false, -l, h)]))
        {
            if !Axis::takes(low, log) || !Axis::takes(high, log) {
                continue;
            }
            let axis = Axis::around([low, high].into_iter(), log, [0.0, 100.0], 0.04).unwrap();
            let ticks = axis.ticks(6);
            assert!((1..=12).contains(&ticks.len()), "{low} to {high}, log {log}: {ticks:?}");
            assert!(ticks.is_sorted_by(|a, b| a.0 < b.0 && a.1 != b.1), "{low} to {high}, log {log}: {ticks:?}");
            assert!(ticks.iter().all(|t| (-0.01..=100.01).contains(&t.0)), "{low} to {high}, log {log}: {ticks:?}");
        }
    }
}
