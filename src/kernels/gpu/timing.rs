//! How long kernels take on the GPU itself, by its own clock.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};

/// Clock readings around every kernel of a batch.
pub(super) struct Timing {
    pub label: String,
    queries: wgpu::QuerySet,
    /// Label of every kernel of the open batch.
    labels: Vec<String>,
    /// Nanoseconds of a tick.
    period: f64,
    /// Batches that were sent and whose clock readings have not been looked at.
    sent: Vec<Sent>,
    resolved: Option<wgpu::Buffer>,
    sums: HashMap<String, f64>,
}

struct Sent {
    labels: Vec<String>,
    buffer: wgpu::Buffer,
    ready: Receiver<bool>,
}

impl Timing {
    pub fn new(device: &wgpu::Device, batch: u32, period: f32) -> Timing {
        let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: None,
            ty: wgpu::QueryType::Timestamp,
            count: 2 * batch,
        });
        Timing {
            label: String::new(),
            queries,
            labels: Vec::new(),
            period: f64::from(period),
            sent: Vec::new(),
            resolved: None,
            sums: HashMap::new(),
        }
    }

    pub fn before(&mut self, pass: &mut wgpu::ComputePass<'_>) {
        pass.write_timestamp(&self.queries, 2 * self.labels.len() as u32);
    }

    pub fn after(&mut self, pass: &mut wgpu::ComputePass<'_>) {
        pass.write_timestamp(&self.queries, 2 * self.labels.len() as u32 + 1);
        self.labels.push(self.label.clone());
    }

    /// At the end of a batch: its readings are copied to where they can be read.
    pub fn resolve(&mut self, device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder) {
        if self.labels.is_empty() {
            return;
        }
        let count = 2 * self.labels.len() as u32;
        let make = |usage| {
            let size = 8 * u64::from(count);
            device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
        };
        let ticks = make(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
        let copy = make(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        encoder.resolve_query_set(&self.queries, 0..count, &ticks, 0);
        encoder.copy_buffer_to_buffer(&ticks, 0, &copy, 0, 8 * u64::from(count));
        self.resolved = Some(copy);
    }

    /// After the batch was sent.
    pub fn collect(&mut self, device: &wgpu::Device) {
        let Some(buffer) = self.resolved.take() else { return };
        let (sender, ready) = channel();
        buffer.map_async(wgpu::MapMode::Read, .., move |result| {
            // Nobody listens any more if timing has ended.
            let _ = sender.send(result.is_ok());
        });
        self.sent.push(Sent { labels: std::mem::take(&mut self.labels), buffer, ready });
        let _ = device.poll(wgpu::PollType::Poll);
        self.look();
    }

    fn look(&mut self) {
        let (sums, period) = (&mut self.sums, self.period);
        self.sent.retain(|sent| {
            let Ok(mapped) = sent.ready.try_recv() else { return true };
            if let Some(view) = mapped.then(|| sent.buffer.get_mapped_range(..).ok()).flatten() {
                let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view[..]);
                for (label, pair) in sent.labels.iter().zip(ticks.as_chunks::<2>().0) {
                    *sums.entry(label.clone()).or_default() += pair[1].saturating_sub(pair[0]) as f64 * period;
                }
            }
            false
        });
    }

    pub fn finish(mut self, device: &wgpu::Device) -> HashMap<String, f64> {
        let _ = device.poll(wgpu::PollType::wait_indefinitely());
        self.look();
        self.sums
    }
}
