//! Which GPUs there are, and opening one.

use super::super::DeviceError;
use super::Gpu;
use super::context::{Context, largest_array};
use crate::array::{Device, GpuId};
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// A GPU of this machine, or something that passes for one.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Adapter {
    /// Its number: `--device gpu:NUMBER`.
    pub number: u32,
    /// As its driver says.
    pub name: String,
    /// "discrete GPU", "integrated GPU", "virtual GPU", "software" or "unknown".
    pub kind: &'static str,
    /// The interface it is used through, such as "vulkan".
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// Bytes of its own memory; none if it does not say.
    pub memory_bytes: Option<u64>,
    /// The largest array, in bytes.
    pub largest_array_bytes: u64,
    /// Bytes of memory that the threads of a workgroup share.
    pub shared_memory_bytes: u32,
    /// Threads of a workgroup, at most.
    pub workgroup_threads: u32,
    /// Threads that run in step: the least and the most.
    pub subgroup_threads: (u32, u32),
    /// What it can do of what this program might use.
    pub features: Vec<&'static str>,
    /// What it lacks of what this program needs; none if it can be used.
    pub lacks: Option<String>,
}

/// Arrays of a kernel, at most: what group_norm_grad and attention_grad use.
const ARRAYS: u32 = 9;

impl Adapter {
    /// Whether it is more than a program on the CPU.
    pub fn is_real(&self) -> bool {
        self.kind.ends_with("GPU")
    }

    fn new(number: u32, adapter: &wgpu::Adapter) -> Adapter {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let known = [
            ("timestamps in passes", wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
            ("f16", wgpu::Features::SHADER_F16),
            ("subgroups", wgpu::Features::SUBGROUP),
        ];
        Adapter {
            number,
            name: info.name,
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => "discrete GPU",
                wgpu::DeviceType::IntegratedGpu => "integrated GPU",
                wgpu::DeviceType::VirtualGpu => "virtual GPU",
                wgpu::DeviceType::Cpu => "software",
                wgpu::DeviceType::Other => "unknown",
            },
            backend: info.backend.to_string(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            memory_bytes: memory(adapter),
            largest_array_bytes: largest_array(&limits),
            shared_memory_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_threads: limits.max_compute_invocations_per_workgroup,
            subgroup_threads: (info.subgroup_min_size, info.subgroup_max_size),
            features: known.iter().filter(|(_, feature)| features.contains(*feature)).map(|(name, _)| *name).collect(),
            lacks: lack(&limits),
        }
    }
}

/// What the kernels need beyond the least that every GPU has.
fn lack(limits: &wgpu::Limits) -> Option<String> {
    let needs = [
        ("threads in a workgroup", u64::from(limits.max_compute_invocations_per_workgroup), 256),
        ("threads along a workgroup", u64::from(limits.max_compute_workgroup_size_x), 256),
        ("bytes of shared memory", u64::from(limits.max_compute_workgroup_storage_size), 16_384),
        ("arrays in a kernel", u64::from(limits.max_storage_buffers_per_shader_stage), u64::from(ARRAYS)),
        ("bytes in an array", limits.max_storage_buffer_binding_size, 1 << 27),
    ];
    let lacking = needs.iter().find(|(_, has, needed)| has < needed);
    lacking.map(|(what, has, needed)| format!("it allows {has} {what}, {needed} are needed"))
}

/// Bytes of the adapter's own memory, where Vulkan tells.
#[cfg(any(target_os = "linux", target_os = "windows"))]
#[allow(unsafe_code)]
fn memory(adapter: &wgpu::Adapter) -> Option<u64> {
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: nothing that is handed out here is kept or destroyed; the adapter and its instance live as long as `raw`, and
    // asking for memory properties changes nothing.
    let properties = unsafe {
        let raw = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        raw.shared_instance().raw_instance().get_physical_device_memory_properties(raw.raw_physical_device())
    };
    let heaps = &properties.memory_heaps[..properties.memory_heap_count as usize];
    Some(heaps.iter().filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).sum())
}

#[cfg(not(any(target_os = "linux", target_os = "windows")))]
fn memory(_: &wgpu::Adapter) -> Option<u64> {
    None
}

/// The adapters of this machine in a stable order, asked for once.
fn list() -> &'static [wgpu::Adapter] {
    static LIST: OnceLock<Vec<wgpu::Adapter>> = OnceLock::new();
    LIST.get_or_init(|| {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
        // Neither validation layers nor debug names: they are for people who work on drivers.
        descriptor.flags = wgpu::InstanceFlags::empty();
        let instance = wgpu::Instance::new(descriptor);
        pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
    })
}

/// The GPUs of this machine.
pub fn adapters() -> Vec<Adapter> {
    (0..).zip(list()).map(|(number, adapter)| Adapter::new(number, adapter)).collect()
}

/// The first GPU that is none in software and can be used.
pub fn real() -> Option<Adapter> {
    if !may_have_hardware() {
        return None;
    }
    let mut usable: Vec<Adapter> = adapters().into_iter().filter(|a| a.is_real() && a.lacks.is_none()).collect();
    usable.sort_by_key(|adapter| adapter.kind != "discrete GPU");
    usable.into_iter().next()
}

/// False where there is certainly no GPU: asking the drivers would load those made of software, which takes 60 ms and 60 MB.
#[cfg(target_os = "linux")]
fn may_have_hardware() -> bool {
    // Every kernel driver of a GPU makes one of these; /dev/dxg is that of Windows around a Linux.
    let fixed = ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kgsl-3d0", "/dev/mali0", "/dev/kfd"];
    let render_node = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("renderD");
    fixed.iter().any(|path| std::path::Path::new(path).exists())
        || std::fs::read_dir("/dev/dri").is_ok_and(|entries| entries.flatten().any(render_node))
}

#[cfg(not(target_os = "linux"))]
fn may_have_hardware() -> bool {
    true
}

/// GPUs in use. They are never closed: kernels are asked for by device, from anywhere.
static OPENED: Mutex<BTreeMap<GpuId, &'static Gpu>> = Mutex::new(BTreeMap::new());

pub(super) fn opened(id: GpuId) -> Option<&'static Gpu> {
    OPENED.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
}

/// Opens the GPU with this number among [`adapters`], if it is not open already. One that has failed is opened anew, as another
/// device. Errors: there is none of this number, it lacks something, or its driver refuses.
pub fn open(number: u32) -> Result<Device, DeviceError> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let last = opened.iter().rfind(|(id, _)| id.adapter == number).map(|(&id, gpu)| (id, *gpu));
    let opening = match last {
        Some((id, gpu)) if gpu.context.check().is_ok() => return Ok(Device::Gpu(id)),
        Some((id, gpu)) => {
            gpu.context.abandon();
            id.opening + 1
        }
        None => 0,
    };
    let id = GpuId { adapter: number, opening };
    opened.insert(id, Box::leak(Box::new(Gpu { context: connect(id)? })));
    Ok(Device::Gpu(id))
}

fn connect(id: GpuId) -> Result<std::sync::Arc<Context>, DeviceError> {
    let number = id.adapter;
    let Some(adapter) = list().get(number as usize) else {
        let problem = match list().len() {
            0 => "no GPU was found: its Vulkan driver may be missing (on Linux, libvulkan1 and the driver's package); use \
                  --device cpu"
                .to_string(),
            n => format!("there is no gpu:{number}; `imagen info` lists those there are ({n}); or use --device cpu"),
        };
        return Err(DeviceError::Missing(problem));
    };
    let name = adapter.get_info().name;
    if let Some(lack) = lack(&adapter.limits()) {
        return Err(DeviceError::Unfit { gpu: name, lack });
    }
    let wanted = wgpu::Features::TIMESTAMP_QUERY
        | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES
        | wgpu::Features::SHADER_F16
        | wgpu::Features::SUBGROUP;
    let request = adapter.request_device(&wgpu::DeviceDescriptor {
        label: None,
        required_features: adapter.features() & wanted,
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::Performance,
        ..Default::default()
    });
    let (device, queue) =
        pollster::block_on(request).map_err(|e| DeviceError::Unfit { gpu: name, lack: e.to_string() })?;
    Ok(Context::new(id, adapter.limits(), device, queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_limit_is_named() {
        assert_eq!(lack(&wgpu::Limits { max_storage_buffers_per_shader_stage: 16, ..Default::default() }), None);
        let small = wgpu::Limits { max_compute_workgroup_storage_size: 8192, ..Default::default() };
        assert_eq!(lack(&small).unwrap(), "it allows 8192 bytes of shared memory, 16384 are needed");
        let few = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..Default::default() };
        assert_eq!(lack(&few).unwrap(), "it allows 4 arrays in a kernel, 9 are needed");
    }

    #[test]
    fn a_gpu_that_does_not_exist_is_an_error_that_says_what_there_is() {
        let message = open(1000).unwrap_err().to_string();
        assert!(message.contains("no GPU was found") || message.contains("there is no gpu:1000"), "{message}");
    }
}
