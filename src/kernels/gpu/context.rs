//! One GPU in use: its memory, its pipelines, and the commands that have been recorded and not yet sent.
//!
//! A kernel is recorded into one open pass and sent together with many others: sending one alone takes ten times as long as
//! recording it. Only reading waits.

use super::super::DeviceError;
use super::numbers::{Numbers, Word, numbers, words};
use super::pipeline::Pipeline;
use super::pool::{Pool, PoolStats, size_class};
use super::shader::Shader;
use super::timing::Timing;
use crate::array::{Array, GpuId, Shape};
use half::f16;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Commands a batch. Enough that sending them costs little, few enough that the GPU does not wait for the first.
const BATCH: u32 = 128;

/// How long a GPU that has done its work may take to hand it over.
const ANSWER: Duration = Duration::from_secs(5);

/// Bytes of parameters that a kernel may have.
const PARAMETERS: usize = 256;

/// Bytes that may go to the GPU by way of the driver's own memory before it is asked to give that back.
const MOST_ON_THE_WAY: u64 = 64 << 20;

/// Operations that a batch has at most, about. A driver takes a GPU for hung that works on one for seconds.
const BATCH_WORK: f64 = 1e11;

/// How long a GPU may take for all that was sent to it.
const PATIENCE: Duration = Duration::from_secs(600);

/// The largest number of workgroups along one axis that every GPU takes.
const MOST_GROUPS: u32 = 65_535;

/// A GPU in use.
pub(super) struct Context {
    pub id: GpuId,
    pub limits: wgpu::Limits,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    /// Why nothing is computed any more.
    failure: Mutex<Option<DeviceError>>,
    pool: Mutex<Pool>,
    pipelines: Mutex<HashMap<Shader, Option<Arc<Pipeline>>>>,
    recorder: Mutex<Recorder>,
    /// Number of the batch that is open. Outside of the recorder: an array that is dropped asks for it.
    batch: AtomicU64,
    /// The most bytes that may be held at once.
    budget: AtomicU64,
    /// Bytes written from the CPU that the driver may still hold a copy of.
    on_the_way: AtomicU64,
    counts: Counts,
}

/// The largest array, in bytes: what the GPU allows, and what the shaders, which count with 31 bits, can reach.
pub(super) fn largest_array(limits: &wgpu::Limits) -> u64 {
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(i32::MAX as u64) & !255
}

/// The commands of the open batch.
struct Recorder {
    /// The pass, and the encoder it writes to. The pass must end first.
    open: Option<(wgpu::ComputePass<'static>, wgpu::CommandEncoder)>,
    /// Parameters of the recorded kernels, each at the next multiple of `stride`.
    parameters: Vec<u8>,
    stride: usize,
    uniform: wgpu::Buffer,
    recorded: u32,
    /// Operations of the kernels recorded, as far as they were told.
    work: f64,
    timing: Option<Timing>,
}

#[derive(Default)]
struct Counts {
    kernels: AtomicU64,
    batches: AtomicU64,
    reads: AtomicU64,
}

/// What a GPU has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Memory.
    pub pool: PoolStats,
    /// Kernels recorded.
    pub kernels: u64,
    /// Batches of kernels sent.
    pub batches: u64,
    /// How often the program waited for the GPU to read from it.
    pub reads: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
}

impl Context {
    pub fn new(id: GpuId, limits: wgpu::Limits, device: wgpu::Device, queue: wgpu::Queue) -> Arc<Context> {
        let stride = (limits.min_uniform_buffer_offset_alignment as usize).max(PARAMETERS);
        let uniform = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: (stride * BATCH as usize) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let recorder =
            Recorder { open: None, parameters: Vec::new(), stride, uniform, recorded: 0, work: 0.0, timing: None };
        let context = Arc::new(Context {
            id,
            limits,
            device,
            queue,
            failure: Mutex::new(None),
            pool: Mutex::new(Pool::new()),
            pipelines: Mutex::default(),
            recorder: Mutex::new(recorder),
            batch: AtomicU64::new(1),
            budget: AtomicU64::new(u64::MAX),
            on_the_way: AtomicU64::new(0),
            counts: Counts::default(),
        });
        // Weak: a context that nobody uses must not live on in its own callbacks.
        let lost = Arc::downgrade(&context);
        context.device.set_device_lost_callback(move |reason, message| {
            if let Some(context) = lost.upgrade() {
                context.fail(DeviceError::Lost(format!("{reason:?}: {message}")));
            }
        });
        let uncaptured = Arc::downgrade(&context);
        context.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            if let Some(context) = uncaptured.upgrade() {
                context.fail(DeviceError::Driver(error.to_string()));
            }
        }));
        context
    }

    /// Why this GPU computes nothing any more, if so.
    pub fn check(&self) -> Result<(), DeviceError> {
        let failure = lock(&self.failure).clone();
        if let Some(DeviceError::Driver(_)) = failure {
            // It may be that the GPU is lost, and that this comes to be known only once all that was sent has ended.
            let _ = self.wait();
        }
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }

    /// The first failure is the one that is told: what follows from it would confuse. Only that the GPU is lost explains more.
    pub fn fail(&self, error: DeviceError) {
        let mut failure = lock(&self.failure);
        match (&*failure, &error) {
            (None, _) | (Some(DeviceError::Driver(_)), DeviceError::Lost(_)) => *failure = Some(error),
            _ => {}
        }
    }

    /// Waits for all that was sent.
    fn wait(&self) -> Result<wgpu::PollStatus, wgpu::PollError> {
        self.device.poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(PATIENCE) })
    }

    /// Takes the buffer of an array that is dropped.
    pub fn take_back(&self, buffer: wgpu::Buffer) {
        let mut pool = lock(&self.pool);
        pool.keep(buffer.size(), self.batch.load(Ordering::Relaxed), buffer);
        if self.has_failed() {
            // Nobody will ask for it any more.
            pool.clear();
        }
    }

    /// Gives back what a GPU that has failed still holds but for arrays that live on.
    pub fn abandon(&self) {
        lock(&self.recorder).open = None;
        lock(&self.pool).clear();
    }

    /// Whether anything has failed. Of a lost GPU this may not know yet.
    fn has_failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    pub fn limit_memory(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
    }

    pub fn stats(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            pool: lock(&self.pool).stats(),
            kernels: count(&self.counts.kernels),
            batches: count(&self.counts.batches),
            reads: count(&self.counts.reads),
            pipelines: lock(&self.pipelines).values().flatten().count() as u64,
        }
    }

    /// An array of unspecified numbers, for a kernel that writes every one of them. `what` is for the message if there is no
    /// memory left; then the GPU has failed, and the array reads as NaN.
    pub fn array(self: &Arc<Context>, shape: impl Into<Shape>, what: &str) -> Array {
        let shape = shape.into();
        let buffer = self.buffer(&shape, 4, what, u64::MAX);
        let numbers = Numbers { context: self.clone(), buffer, len: shape.numel(), half: false };
        Array::from_remote(shape, Arc::new(numbers))
    }

    /// An array with the given numbers.
    pub fn upload(self: &Arc<Context>, shape: &Shape, values: &[f32]) -> Array {
        self.write(shape, bytemuck::cast_slice(values), false)
    }

    /// An array with the given numbers of 16 bits.
    pub fn upload_half(self: &Arc<Context>, shape: &Shape, values: &[f16]) -> Array {
        let mut bits: Vec<u16> = values.iter().map(|value| value.to_bits()).collect();
        // Only whole words can be written.
        bits.resize(bits.len().next_multiple_of(2), 0);
        self.write(shape, bytemuck::cast_slice(&bits), true)
    }

    fn write(self: &Arc<Context>, shape: &Shape, bytes: &[u8], half: bool) -> Array {
        // Writing is not recorded, it happens before all that is: a buffer that recorded kernels still use is of no use.
        let width = if half { 2 } else { 4 };
        let buffer = self.buffer(shape, width, "numbers from the CPU", self.batch.load(Ordering::Relaxed));
        if let Some(buffer) = &buffer {
            self.queue.write_buffer(buffer, 0, bytes);
            if self.on_the_way.fetch_add(bytes.len() as u64, Ordering::Relaxed) > MOST_ON_THE_WAY {
                // No recorded kernel uses the buffers that were written to, so these may go ahead.
                self.queue.submit([]);
                let _ = self.wait();
                self.on_the_way.store(0, Ordering::Relaxed);
            }
        }
        Array::from_remote(shape, Arc::new(Numbers { context: self.clone(), buffer, len: shape.numel(), half }))
    }

    /// A buffer for indices, which no kernel writes to.
    pub fn indices(self: &Arc<Context>, values: &[u32]) -> Array {
        self.upload(&[values.len()].into(), bytemuck::cast_slice(values))
    }

    /// A buffer for numbers of `width` bytes that is not used by any batch from `before` on.
    fn buffer(&self, shape: &Shape, width: u64, what: &str, before: u64) -> Option<wgpu::Buffer> {
        if shape.numel() == 0 || self.has_failed() {
            return None;
        }
        let bytes = width * shape.numel() as u64;
        let limit = largest_array(&self.limits);
        let what = || format!("{what} {shape}");
        let class = size_class(bytes).min(limit.max(bytes));
        if class > limit {
            self.fail(DeviceError::TooLarge { what: what(), bytes, limit });
            return None;
        }
        let mut pool = lock(&self.pool);
        if let Some(buffer) = pool.take(class, before) {
            return Some(buffer);
        }
        if let Some(buffer) = self.make(&mut pool, class) {
            return Some(buffer);
        }
        // What lies on the shelves may be enough, once the driver has it back.
        pool.clear();
        drop(pool);
        self.flush();
        let _ = self.wait();
        let mut pool = lock(&self.pool);
        let made = self.make(&mut pool, class);
        if made.is_none() {
            let used = pool.stats().live;
            self.fail(DeviceError::OutOfMemory { what: what(), bytes, used });
        }
        made
    }

    /// A new buffer; none if there is no memory for it.
    fn make(&self, pool: &mut Pool, class: u64) -> Option<wgpu::Buffer> {
        let held = pool.stats();
        if held.live + held.shelved + class > self.budget.load(Ordering::Relaxed) {
            return None;
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: class,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        if pollster::block_on(scope.pop()).is_some() {
            return None;
        }
        pool.made(class);
        Some(buffer)
    }

    /// Records a kernel: `groups` workgroups of `shader`, given `parameters` and the arrays that its entry point uses, in the
    /// order of their bindings. Nothing is done if there are no groups, or if the GPU has failed.
    #[track_caller]
    pub fn run(&self, shader: Shader, parameters: &[Word], arrays: &[&Array], groups: usize) {
        if groups == 0 || self.has_failed() {
            return;
        }
        if !shader.half && arrays.iter().any(|array| numbers(array).half) {
            let wide: Vec<Array> = arrays.iter().map(|array| self.widened(array)).collect();
            return self.run(shader, parameters, &wide.iter().collect::<Vec<_>>(), groups);
        }
        let Some(pipeline) = self.pipeline(&shader) else { return };
        assert_eq!(arrays.len(), pipeline.arrays.len(), "{}.{}: number of arrays", shader.file, shader.entry);
        let mut buffers = Vec::with_capacity(arrays.len());
        for array in arrays {
            let numbers = numbers(array);
            match &numbers.buffer {
                Some(buffer) => buffers.push(buffer),
                None if array.numel() == 0 => panic!("{}.{}: an array without numbers", shader.file, shader.entry),
                None => return,
            }
        }
        let groups = u32::try_from(groups).expect("a GPU holds fewer than 2^32 numbers");
        let (x, y) = folded(groups);
        // Before the lock: a panic within it would leave half of the parameters behind.
        assert!(size_of_val(parameters) <= PARAMETERS, "{}: too many parameters", shader.file);
        let mut recorder = lock(&self.recorder);
        let offset = recorder.parameters.len();
        recorder
            .parameters
            .extend_from_slice(bytemuck::cast_slice(&parameters.iter().map(|w| w.0).collect::<Vec<_>>()));
        let padded = offset + recorder.stride;
        recorder.parameters.resize(padded, 0);
        let uniform = wgpu::BufferBinding {
            buffer: &recorder.uniform,
            offset: 0,
            size: wgpu::BufferSize::new(PARAMETERS as u64),
        };
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(uniform) }];
        entries.extend(
            pipeline
                .arrays
                .iter()
                .zip(&buffers)
                .map(|(&binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() }),
        );
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(shader.file),
            layout: &pipeline.layout,
            entries: &entries,
        });
        // ANCHOR: record
        let Recorder { open, timing, .. } = &mut *recorder;
        let (pass, _) = open.get_or_insert_with(|| self.begin());
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &group, &[offset as u32]);
        if let Some(timing) = timing {
            timing.before(pass);
        }
        pass.dispatch_workgroups(x, y, 1);
        if let Some(timing) = timing {
            timing.after(pass);
        }
        recorder.recorded += 1;
        self.counts.kernels.fetch_add(1, Ordering::Relaxed);
        if recorder.recorded == BATCH || recorder.work > BATCH_WORK {
            self.send(&mut recorder, None);
        }
        // ANCHOR_END: record
    }

    /// The array with 32 bits a number.
    pub fn widened(&self, array: &Array) -> Array {
        let Numbers { half: true, context, .. } = numbers(array) else { return array.clone() };
        let wide = context.array(array.shape(), "numbers of 16 bits");
        let shader = Shader::new("half", "widen").with_half(true);
        self.run(shader, words![array.numel()], &[array, &wide], array.numel().div_ceil(256));
        wide
    }

    /// Tells that the next kernel does so many operations: a batch is sent before it has too many.
    pub fn expect(&self, operations: f64) {
        lock(&self.recorder).work += operations;
    }

    fn begin(&self) -> (wgpu::ComputePass<'static>, wgpu::CommandEncoder) {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()).forget_lifetime();
        (pass, encoder)
    }

    /// The compiled shader; none if it cannot be compiled, and then the GPU has failed.
    fn pipeline(&self, shader: &Shader) -> Option<Arc<Pipeline>> {
        match lock(&self.pipelines).entry(shader.clone()) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => {
                let made = Pipeline::new(&self.device, shader).map_err(|e| self.fail(e)).ok();
                entry.insert(made.map(Arc::new)).clone()
            }
        }
    }

    /// Sends what has been recorded.
    pub fn flush(&self) {
        self.send(&mut lock(&self.recorder), None);
    }

    /// Sends what has been recorded, and behind it a copy of `from`'s first bytes to `to`.
    fn send(&self, recorder: &mut Recorder, copy: Option<(&wgpu::Buffer, &wgpu::Buffer, u64)>) {
        if recorder.open.is_none() && copy.is_none() {
            return;
        }
        let (pass, mut encoder) = recorder.open.take().unwrap_or_else(|| self.begin());
        drop(pass);
        if let Some(timing) = &mut recorder.timing {
            timing.resolve(&self.device, &mut encoder);
        }
        if let Some((from, to, bytes)) = copy {
            encoder.copy_buffer_to_buffer(from, 0, to, 0, bytes);
        }
        if !recorder.parameters.is_empty() {
            self.queue.write_buffer(&recorder.uniform, 0, &recorder.parameters);
        }
        self.queue.submit([encoder.finish()]);
        recorder.parameters.clear();
        recorder.recorded = 0;
        recorder.work = 0.0;
        self.batch.fetch_add(1, Ordering::Relaxed);
        self.counts.batches.fetch_add(1, Ordering::Relaxed);
        if let Some(timing) = &mut recorder.timing {
            timing.collect(&self.device);
        }
    }

    /// The first numbers of a buffer, once all that was recorded before has been done; none if the GPU has failed.
    pub fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer, len: usize) -> Option<Vec<T>> {
        if self.has_failed() {
            return None;
        }
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = (size_of::<T>() * len) as u64;
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        if pollster::block_on(scope.pop()).is_some() {
            let used = lock(&self.pool).stats().live;
            self.fail(DeviceError::OutOfMemory { what: "a copy to be read".into(), bytes, used });
            return None;
        }
        self.send(&mut lock(&self.recorder), Some((buffer, &staging, bytes)));
        let (sender, receiver) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            let _ = sender.send(result);
        });
        let polled = self.wait();
        let lost = |why: String| self.fail(DeviceError::Lost(why));
        if let Err(error) = polled {
            lost(error.to_string());
            return None;
        }
        // Another thread that polls at the same time may be the one that calls back.
        match receiver.recv_timeout(ANSWER) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                lost(error.to_string());
                return None;
            }
            Err(_) => {
                lost("it does not answer".into());
                return None;
            }
        }
        let numbers = match staging.get_mapped_range(..) {
            Ok(view) => bytemuck::pod_collect_to_vec(&view[..]),
            Err(error) => {
                lost(error.to_string());
                return None;
            }
        };
        // An error that the batch itself met may have arrived only now.
        self.check().ok().map(|()| numbers)
    }

    /// Begins to time every kernel, under the label set by [`Context::label`]. False if the GPU has no clock to read.
    pub fn start_timing(&self) -> bool {
        let wanted = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES;
        if !self.device.features().contains(wanted) {
            return false;
        }
        self.flush();
        lock(&self.recorder).timing = Some(Timing::new(&self.device, BATCH, self.queue.get_timestamp_period()));
        true
    }

    /// What the kernels recorded from now on are timed under.
    pub fn label(&self, label: String) {
        if let Some(timing) = &mut lock(&self.recorder).timing {
            timing.label = label;
        }
    }

    /// Ends it: nanoseconds by label.
    pub fn stop_timing(&self) -> HashMap<String, f64> {
        self.flush();
        lock(&self.recorder).timing.take().map_or_else(HashMap::new, |timing| timing.finish(&self.device))
    }
}

// ANCHOR: folded
/// `groups` as a rectangle whose sides every GPU takes. It may have a few more; kernels leave those out.
fn folded(groups: u32) -> (u32, u32) {
    let rows = groups.div_ceil(MOST_GROUPS);
    (groups.div_ceil(rows), rows)
}
// ANCHOR_END: folded

/// A panic elsewhere leaves nothing half done that would matter here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    // ANCHOR: a_folded_dispatch_covers_all_groups_and_fits_every_gpu
    #[test]
    fn a_folded_dispatch_covers_all_groups_and_fits_every_gpu() {
        for groups in [1, 2, 65_535, 65_536, 131_070, 131_071, 1_000_003, u32::MAX / 2] {
            let (x, y) = folded(groups);
            assert!(x <= MOST_GROUPS && y <= MOST_GROUPS && x * y >= groups && x * y - groups < y, "{groups}: {x} {y}");
        }
    }
    // ANCHOR_END: a_folded_dispatch_covers_all_groups_and_fits_every_gpu
}
