//! From shaders to pipelines: compiled once for every (file, entry point, constants), and kept.

use super::super::DeviceError;
use super::shader::{Expanded, Shader};
use wgpu::naga::{self, valid};

/// A compiled shader and what it wants to be given.
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    /// Numbers of the bindings of arrays that the entry point uses, in order.
    pub arrays: Vec<u32>,
}

impl Pipeline {
    /// Compiles. Errors name the file and line.
    pub fn new(device: &wgpu::Device, shader: &Shader) -> Result<Pipeline, DeviceError> {
        let expanded = Expanded::of(shader)?;
        let arrays = check(&expanded, shader.entry)?;
        let uniform = wgpu::BindGroupLayoutEntry {
            binding: 0,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Uniform,
                has_dynamic_offset: true,
                min_binding_size: None,
            },
            count: None,
        };
        let storage = arrays.iter().map(|&(binding, written)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: !written },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        });
        let entries: Vec<_> = std::iter::once(uniform).chain(storage).collect();
        // What the driver's compiler refuses, though naga took it, arrives here.
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let layout = device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(shader.file), entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(shader.file),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(shader.file),
            layout: Some(&pipeline_layout),
            module: &module(device, shader.file, &expanded.text),
            entry_point: Some(shader.entry),
            // Every kernel writes its shared memory before it reads it.
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let problem = pollster::block_on(internal.pop()).or(pollster::block_on(scope.pop()));
        match problem {
            None => Ok(Pipeline { pipeline, layout, arrays: arrays.into_iter().map(|(binding, _)| binding).collect() }),
            Some(error) => Err(expanded.error(1, &format!("{}: {error}", shader.entry))),
        }
    }
}

/// Parses and validates: (binding, whether it is written to) of the arrays that the entry point uses, in order.
fn check(expanded: &Expanded, entry: &str) -> Result<Vec<(u32, bool)>, DeviceError> {
    let module = naga::front::wgsl::parse_str(&expanded.text).map_err(|e| {
        let line = e.location(&expanded.text).map_or(1, |at| at.line_number as usize);
        expanded.error(line, e.message())
    })?;
    let mut validator = valid::Validator::new(valid::ValidationFlags::all(), valid::Capabilities::all());
    let info = validator.validate(&module).map_err(|e| {
        let line = e.location(&expanded.text).map_or(1, |at| at.line_number as usize);
        let causes = std::iter::successors(Some(e.as_inner() as &dyn std::error::Error), |e| e.source());
        expanded.error(line, &causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
    })?;
    let Some(index) = module.entry_points.iter().position(|e| e.name == entry) else {
        return Err(expanded.error(1, &format!("there is no entry point {entry}")));
    };
    let uses = info.get_entry_point(index);
    let mut arrays: Vec<(u32, bool)> = module
        .global_variables
        .iter()
        .filter(|&(handle, _)| !uses[handle].is_empty())
        .filter_map(|(_, variable)| match variable.space {
            naga::AddressSpace::Storage { access } => {
                Some((variable.binding.as_ref()?.binding, access.contains(naga::StorageAccess::STORE)))
            }
            _ => None,
        })
        .collect();
    arrays.sort_unstable();
    Ok(arrays)
}

/// The driver's module of a shader. In builds with debug assertions, such as those of the tests, every access to memory is
/// checked at run time.
fn module(device: &wgpu::Device, label: &str, text: &str) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(text.into()) };
    if cfg!(debug_assertions) {
        return device.create_shader_module(descriptor);
    }
    unchecked(device, descriptor)
}

/// Without run-time checks: in a matrix product they cost as much as the arithmetic.
#[allow(unsafe_code)]
fn unchecked(device: &wgpu::Device, descriptor: wgpu::ShaderModuleDescriptor<'_>) -> wgpu::ShaderModule {
    // SAFETY: the text is one of the shaders of this crate, never a user's. Each compares its indices with the sizes it is
    // given before it reads or writes, or stays within a buffer's size class, and each of its loops counts up to a number
    // that was there before the loop. The tests run all of them with the checks on, over the same shapes, and compare every
    // number; an access that a check had turned into another one would give another number.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}

#[cfg(test)]
mod tests {
    use super::super::shader::{ENTRIES, Shader};
    use super::*;

    /// Neither the lines in front of a file, its constants, nor those an include or a loop brings, shift the number.
    #[test]
    fn a_mistake_in_a_shader_is_reported_with_its_file_and_line() {
        let good = "@group(0) @binding(1) var<storage, read_write> y: array<f32>;";
        for (text, place, problem) in [
            ("fn f() {\n    let a = 1;\n    let b = c;\n}", "wgsl/part.wgsl line 3", "no definition in scope"),
            ("fn f() -> f32 {\n    return 1u;\n}", "wgsl/part.wgsl line", "return"),
            ("fn f() {\n    let x = 1.0 +;\n}", "wgsl/part.wgsl line 2", "expected"),
        ] {
            let main = format!("{good}\n//: for i in 0..3\nconst C$i = 1;\n//: end\n//: include part");
            let shader = Shader::new("main", "main").with("A", 1_u32).with("B", 2_u32);
            let files = |name: &str| match name {
                "main" => Some(main.as_str()),
                "part" => Some(text),
                _ => None,
            };
            let expanded = Expanded::from_sources(&shader, &files).unwrap();
            let Err(DeviceError::Shader { place: found, problem: said }) = check(&expanded, "main") else {
                panic!("{text} is no valid shader")
            };
            assert!(found.starts_with(place), "{found}: {said}");
            assert!(said.to_lowercase().contains(problem), "{found}: {said}");
        }
    }

    /// Without a driver: every shader of the folder parses, and every use of an array is within its declaration.
    #[test]
    fn every_entry_point_is_valid_wgsl() {
        for (file, entry, constants) in ENTRIES {
            let mut shader = Shader::new(file, entry).with_half(*file == "half");
            for &(name, value) in *constants {
                shader = shader.with(name, value);
            }
            let arrays =
                check(&Expanded::of(&shader).unwrap(), entry).unwrap_or_else(|e| panic!("{file} {entry}: {e}"));
            assert!(arrays.iter().any(|&(_, written)| written), "{file} {entry} writes nothing");
        }
    }
}
