//! What happened in a run, step by step: one JSON object a line.

use crate::files::{self, FileError};
use crate::picture::{Chart, Curve};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One line of metrics.jsonl.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Steps done, from 1.
    pub step: u64,
    /// Mean loss over the steps since the last record.
    pub loss: f64,
    /// Norm of all gradients at this step, before clipping.
    pub grad_norm: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Images or texts a second since the last record.
    #[serde(alias = "images_per_second")]
    pub examples_per_second: f64,
    /// Seconds of training so far, over all sessions of the run.
    pub seconds: f64,
    /// A score that was measured at this step, such as the test accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// The metrics file of a run, open for more.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    records: Vec<Record>,
}

impl Metrics {
    /// Opens the file and forgets lines after `step` (and a last line that was cut short): a resumed run writes them again.
    pub fn open(path: &Path, step: u64) -> Result<Metrics, FileError> {
        let records: Vec<Record> = match path.exists() {
            true => Metrics::read(path)?.into_iter().take_while(|r| r.step <= step).collect(),
            false => Vec::new(),
        };
        let lines: String = records.iter().map(line).collect();
        files::write(path, lines.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(|e| FileError::new("write", path, e))?;
        Ok(Metrics { path: path.to_path_buf(), file, records })
    }

    /// Every whole line of a metrics file.
    pub fn read(path: &Path) -> Result<Vec<Record>, FileError> {
        Ok(files::read_text(path)?.lines().map_while(|l| serde_json::from_str(l).ok()).collect())
    }

    /// Adds a line.
    pub fn add(&mut self, record: Record) -> Result<(), FileError> {
        self.file.write_all(line(&record).as_bytes()).map_err(|e| FileError::new("write", &self.path, e))?;
        self.records.push(record);
        Ok(())
    }

    /// All lines so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The loss over the steps, as an SVG document.
    pub fn loss_curve(&self, title: &str) -> String {
        let points = self.records.iter().map(|r| (r.step as f64, r.loss)).collect();
        Chart::new(title).x("step").y("loss").log_y().curve(Curve::new("loss", points).smoothed(0.8)).svg()
    }
}

fn line(record: &Record) -> String {
    serde_json::to_string(record).expect("numbers can always be written") + "\n"
}
