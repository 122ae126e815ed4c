//! Does a picture show what was asked for? Counts of (asked class, recognised class).

use serde::{Deserialize, Serialize};
use std::fmt;

/// How often a classifier recognised in a picture the class that its prompt had asked for.
///
/// Serialises as `classes`, `confusion`, `per_class` and `total`, the last two as [`Share`]s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "Report")]
pub struct Agreement {
    classes: Vec<String>,
    confusion: Vec<Vec<u32>>,
}

/// `agreed` out of `asked`, with what may be said about the true share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Pictures in which the asked class was recognised.
    pub agreed: u64,
    /// Pictures asked for.
    pub asked: u64,
    /// agreed / asked, in [0, 1]; none if nothing was asked.
    pub rate: Option<f64>,
    /// The 95 % confidence interval of the true share, in [0, 1].
    pub interval: [f64; 2],
}

impl Share {
    /// A share with Wilson's interval (1927), which stays inside [0, 1] and is sound for shares near 1 and for few
    /// pictures. Panics if `agreed` is more than `asked`.
    #[track_caller]
    pub fn new(agreed: u64, asked: u64) -> Share {
        assert!(agreed <= asked, "share: {agreed} of {asked}");
        if asked == 0 {
            return Share { agreed, asked, rate: None, interval: [0.0, 1.0] };
        }
        // The 97.5 % quantile of N(0, 1).
        let z2 = 1.959_963_984_540_054_f64.powi(2);
        let (n, p) = (asked as f64, agreed as f64 / asked as f64);
        let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = (z2 * (p * (1.0 - p) / n + z2 / (4.0 * n * n))).sqrt() / (1.0 + z2 / n);
        Share { agreed, asked, rate: Some(p), interval: [(centre - half).max(0.0), (centre + half).min(1.0)] }
    }
}

impl Agreement {
    /// No pictures yet, of these classes.
    pub fn new(classes: impl IntoIterator<Item = impl Into<String>>) -> Agreement {
        let classes: Vec<String> = classes.into_iter().map(Into::into).collect();
        let confusion = vec![vec![0; classes.len()]; classes.len()];
        Agreement { classes, confusion }
    }

    /// Counts one picture. Panics on a class that does not exist.
    #[track_caller]
    pub fn count(&mut self, asked: usize, recognised: usize) {
        let k = self.classes.len();
        assert!(asked < k && recognised < k, "agreement: classes {asked} and {recognised} of {k}");
        self.confusion[asked][recognised] += 1;
    }

    /// The names of the K classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The counts [K, K]: row = asked class, column = recognised class.
    pub fn confusion(&self) -> &[Vec<u32>] {
        &self.confusion
    }

    /// The agreement of one class. Panics if there is no such class.
    #[track_caller]
    pub fn of_class(&self, class: usize) -> Share {
        let row = &self.confusion[class];
        Share::new(u64::from(row[class]), row.iter().copied().map(u64::from).sum())
    }

    /// The agreement over all pictures.
    pub fn total(&self) -> Share {
        let shares = (0..self.classes.len()).map(|class| self.of_class(class));
        let (agreed, asked) = shares.fold((0, 0), |(a, n), share| (a + share.agreed, n + share.asked));
        Share::new(agreed, asked)
    }

    /// What a class is most often mistaken for, and how often; none if it never was.
    fn mistaken(&self, class: usize) -> Option<(&str, u32)> {
        let others = self.confusion[class].iter().enumerate().filter(|&(other, &count)| other != class && count > 0);
        let (other, &count) = others.min_by_key(|&(_, &count)| std::cmp::Reverse(count))?;
        Some((&self.classes[other], count))
    }
}

/// [`Agreement`] with all that follows from it.
#[derive(Serialize)]
struct Report {
    classes: Vec<String>,
    confusion: Vec<Vec<u32>>,
    per_class: Vec<Share>,
    total: Share,
}

impl From<Agreement> for Report {
    fn from(agreement: Agreement) -> Report {
        let per_class = (0..agreement.classes.len()).map(|class| agreement.of_class(class)).collect();
        let total = agreement.total();
        Report { classes: agreement.classes, confusion: agreement.confusion, per_class, total }
    }
}

/// The rate and the interval in percent.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = self.interval.map(|end| 100.0 * end);
        match self.rate {
            Some(rate) => write!(f, "{:5.1} %  {low:5.1} – {high:5.1}", 100.0 * rate),
            None => write!(f, "    – %      –       "),
        }
    }
}

/// A table: one line a class, and one for all.
impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.classes.iter().map(|class| class.chars().count()).fold(5, usize::max);
        writeln!(f, "{:name$}  {:>6}  agreement  95 % interval  mistaken for", "class", "asked")?;
        let mut line = |class: &str, share: Share, note: &str| {
            let row = format!("{class:name$}  {:>6}    {share}", share.asked);
            writeln!(f, "{}", format!("{row}  {note}").trim_end())
        };
        for (class, words) in self.classes.iter().enumerate() {
            let note = self.mistaken(class).map(|(other, count)| format!("{other} ({count})"));
            line(words, self.of_class(class), &note.unwrap_or_default())?;
        }
        line("all", self.total(), "")
    }
}
