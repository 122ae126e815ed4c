//! Shaders: WGSL files of the folder `wgsl`, each used with constants that are known when it is compiled.
//!
//! WGSL has no includes, no templates, and compilers that do not always unroll a loop. So lines that begin with `//:` are
//! read here before the shader is compiled:
//!
//! ```text
//! //: include functions           the file wgsl/functions.wgsl in this place
//! //: for i in 0..ROWS            the lines up to the matching end, once for each i; $i in them is the number.
//! //: for c in x y z w            The bounds are numbers or constants; a list names each.
//! //: end
//! ```
//!
//! Constants become `const NAME: u32 = value;` in front of the file, and the type STORED is f32 or f16. Every line of the result remembers where it came
//! from, so an error names the file and line that a person would look at.

use super::super::DeviceError;
use std::collections::HashMap;
use std::fmt::Write;

macro_rules! sources {
    ($($name:literal)*) => {
        /// The files, by name without the ending.
        const SOURCES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../wgsl/", $name, ".wgsl")))),*];
    };
}

sources! {
    "adam" "affine" "attention" "attention_grad" "attention_params" "binary" "clip" "conv_direct"
    "conv_forward" "conv_grad_input" "conv_grad_weight" "conv_params" "copy" "fill" "functions" "gemm"
    "group_norm" "group_norm_grad" "half" "in_place" "lanes" "matmul" "matmul_params" "matmul_plain" "matmul_tiled"
    "peak" "reduce" "resize" "rows" "softmax" "transpose" "unary"
}

/// Every entry point with constants that go together: what the tests compile.
#[cfg(test)]
#[rustfmt::skip]
#[allow(clippy::type_complexity, reason = "file, entry point, constants")]
pub(super) const ENTRIES: &[(&str, &str, &[(&str, u32)])] = &[
    ("adam", "adam", &[]), ("adam", "adam_averaged", &[]),
    ("affine", "affine", &[]), ("fill", "fill", &[]),
    ("attention", "attention", &[("D4", 4)]),
    ("attention_grad", "queries", &[("D4", 4)]), ("attention_grad", "keys", &[("D4", 4)]),
    ("binary", "same", &[("OP", 0), ("RANK", 0)]), ("binary", "broadcast", &[("OP", 3), ("RANK", 3)]),
    ("clip", "norm", &[("LANES", 256)]), ("clip", "shorten", &[("LANES", 256)]),
    ("conv_direct", "forward", &CONV), ("conv_direct", "grad_input", &CONV), ("conv_direct", "grad_weight", &CONV),
    ("conv_forward", "gemm", &GEMM), ("conv_grad_input", "gemm", &GEMM), ("conv_grad_weight", "gemm", &GEMM),
    ("copy", "gather", &[("RANK", 4)]), ("copy", "place", &[("RANK", 0)]), ("copy", "unslice", &[("RANK", 0)]),
    ("group_norm", "group_norm", &[("LANES", 64), ("SILU", 1)]),
    ("group_norm_grad", "channel_sums", &[("LANES", 64), ("SILU", 1)]),
    ("group_norm_grad", "grad_input", &[("LANES", 64), ("SILU", 0)]),
    ("half", "widen", &[]),
    ("in_place", "in_place", &[("LERP", 1)]), ("in_place", "into_new", &[("LERP", 0)]),
    ("matmul", "gemm", &GEMM), ("matmul_plain", "matmul_plain", &[]), ("matmul_tiled", "matmul_tiled", &[]),
    ("peak", "multiply_add", &[("UNROLLED", 8)]),
    ("reduce", "along_rows", &[("OP", 1), ("LANES", 16)]), ("reduce", "along_columns", &[("OP", 0), ("LANES", 1)]),
    ("resize", "upsample_nearest", &[]), ("resize", "sum_pool", &[]),
    ("rows", "gather", &[]), ("rows", "scatter_add", &[]),
    ("softmax", "softmax", &[("LANES", 32)]), ("softmax", "softmax_grad", &[("LANES", 32)]),
    ("softmax", "log_softmax", &[("LANES", 32)]), ("softmax", "log_softmax_grad", &[("LANES", 32)]),
    ("transpose", "transpose_tiles", &[]),
    ("unary", "unary", &[("OP", 14)]), ("unary", "unary_grad", &[("OP", 14)]),
];

#[cfg(test)]
const CONV: [(&str, u32); 3] = [("KH", 3), ("KW", 3), ("STRIDE", 2)];

#[cfg(test)]
#[rustfmt::skip]
const GEMM: [(&str, u32); 12] = [
    ("KH", 3), ("KW", 3), ("STRIDE", 1), ("TILE_M", 32), ("TILE_N", 32), ("TILE_K", 16), ("M4", 1), ("N4", 1),
    ("A_LOADS", 2), ("B_LOADS", 2), ("A_ALONG_K", 1), ("B_ALONG_K", 0),
];

/// Which program: a file, one of its entry points, and the constants it is compiled with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shader {
    pub file: &'static str,
    pub entry: &'static str,
    pub constants: Vec<(&'static str, u32)>,
    /// Whether the array of type STORED, if there is one, has 16 bits a number.
    pub half: bool,
}

impl Shader {
    pub fn new(file: &'static str, entry: &'static str) -> Shader {
        Shader { file, entry, constants: Vec::new(), half: false }
    }

    /// With the array of type STORED in 16 bits a number, or in 32.
    pub fn with_half(self, half: bool) -> Shader {
        Shader { half, ..self }
    }

    /// With a constant more.
    pub fn with(mut self, name: &'static str, value: impl Into<Constant>) -> Shader {
        self.constants.push((name, value.into().0));
        self
    }
}

/// A number that a shader is compiled with.
pub(super) struct Constant(u32);

impl From<u32> for Constant {
    fn from(value: u32) -> Constant {
        Constant(value)
    }
}

impl From<usize> for Constant {
    fn from(value: usize) -> Constant {
        Constant(u32::try_from(value).expect("a constant of a shader is small"))
    }
}

impl From<bool> for Constant {
    fn from(value: bool) -> Constant {
        Constant(u32::from(value))
    }
}

/// A shader ready to be compiled.
pub(super) struct Expanded {
    pub text: String,
    /// File and line of every line of the text.
    origins: Vec<(String, usize)>,
}

impl Expanded {
    /// The shader's text with includes and loops written out.
    pub fn of(shader: &Shader) -> Result<Expanded, DeviceError> {
        Expanded::from_sources(shader, &|name| SOURCES.iter().find(|(file, _)| *file == name).map(|(_, text)| *text))
    }

    /// As [`Expanded::of`], of other files than those of the folder.
    pub fn from_sources<'a>(
        shader: &Shader,
        source: &dyn Fn(&str) -> Option<&'a str>,
    ) -> Result<Expanded, DeviceError> {
        let mut expanded = Expanded { text: String::new(), origins: Vec::new() };
        if shader.half {
            expanded.push("enable f16;", shader.file, 0);
        }
        expanded.push(&format!("alias STORED = {};", if shader.half { "f16" } else { "f32" }), shader.file, 0);
        for (name, value) in &shader.constants {
            expanded.push(&format!("const {name}: u32 = {value}u;"), shader.file, 0);
        }
        let mut variables: HashMap<String, String> =
            shader.constants.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        expanded.file(shader.file, source, &mut variables)?;
        Ok(expanded)
    }

    fn push(&mut self, line: &str, file: &str, number: usize) {
        self.text.push_str(line);
        self.text.push('\n');
        self.origins.push((file.to_string(), number));
    }

    fn file<'a>(
        &mut self,
        name: &str,
        source: &dyn Fn(&str) -> Option<&'a str>,
        variables: &mut HashMap<String, String>,
    ) -> Result<(), DeviceError> {
        let text = source(name).ok_or_else(|| error(name, 0, "there is no such file in wgsl"))?;
        let lines: Vec<&str> = text.lines().collect();
        self.lines(name, &lines, 1, source, variables)
    }

    /// `lines` of the file `name`, the first of which is line `first`.
    fn lines<'a>(
        &mut self,
        name: &str,
        lines: &[&str],
        first: usize,
        source: &dyn Fn(&str) -> Option<&'a str>,
        variables: &mut HashMap<String, String>,
    ) -> Result<(), DeviceError> {
        let mut at = 0;
        while at < lines.len() {
            let number = first + at;
            let Some(directive) = lines[at].trim_start().strip_prefix("//:") else {
                self.push(&replaced(lines[at], variables), name, number);
                at += 1;
                continue;
            };
            let words: Vec<&str> = directive.split_whitespace().collect();
            match words[..] {
                ["include", file] => self.file(file, source, variables)?,
                ["for", variable, "in", ref values @ ..] if !values.is_empty() => {
                    let length = body(&lines[at + 1..]).ok_or_else(|| error(name, number, "this loop has no end"))?;
                    let values = range(values, variables).ok_or_else(|| error(name, number, "no such range"))?;
                    for value in values {
                        let outer = variables.insert(variable.to_string(), value);
                        self.lines(name, &lines[at + 1..][..length], number + 1, source, variables)?;
                        variables.remove(variable);
                        variables.extend(outer.map(|value| (variable.to_string(), value)));
                    }
                    at += length + 1;
                }
                _ => return Err(error(name, number, "unknown directive")),
            }
            at += 1;
        }
        Ok(())
    }

    /// The error of a compiler that found `problem` at `line` of the text, counted from 1.
    pub fn error(&self, line: usize, problem: &str) -> DeviceError {
        let (file, number) = self.origins.get(line.saturating_sub(1)).cloned().unwrap_or_default();
        error(&file, number, problem)
    }
}

fn error(file: &str, line: usize, problem: &str) -> DeviceError {
    DeviceError::Shader { place: format!("wgsl/{file}.wgsl line {line}"), problem: problem.to_string() }
}

/// How many lines there are before the end of a loop.
fn body(lines: &[&str]) -> Option<usize> {
    let mut depth = 1;
    for (i, line) in lines.iter().enumerate() {
        match line.trim_start().strip_prefix("//:").and_then(|d| d.split_whitespace().next()) {
            Some("for") => depth += 1,
            Some("end") => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(i);
        }
    }
    None
}

/// `a..b`, or the words themselves.
fn range(words: &[&str], variables: &HashMap<String, String>) -> Option<Vec<String>> {
    let [one] = words else { return Some(words.iter().map(|w| w.to_string()).collect()) };
    let Some((from, to)) = one.split_once("..") else { return Some(vec![one.to_string()]) };
    let number = |word: &str| variables.get(word).map_or(word, String::as_str).parse::<u32>().ok();
    Some((number(from)?..number(to)?).map(|i| i.to_string()).collect())
}

/// The line with every `$name` of a known variable replaced.
fn replaced(line: &str, variables: &HashMap<String, String>) -> String {
    let mut parts = line.split('$');
    let mut result = parts.next().unwrap_or_default().to_string();
    for part in parts {
        // A name is a letter, so that `acc_$i_$j` and `v.$c` need no brackets.
        let name = &part[..part.len().min(1)];
        match variables.get(name) {
            Some(value) => write!(result, "{value}{}", &part[1..]).expect("a string can be written to"),
            None => write!(result, "${part}").expect("a string can be written to"),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(shader: &Shader, files: &[(&str, &'static str)]) -> Result<Expanded, DeviceError> {
        Expanded::from_sources(shader, &|name| files.iter().find(|f| f.0 == name).map(|f| f.1))
    }

    #[test]
    fn constants_includes_and_nested_loops_are_written_out() {
        let main =
            "//: include part\n//: for i in 0..ROWS\n//: for c in x y\na$i.$c = b[$i + $j];\n//: end\n//: end\nlast";
        let shader = Shader::new("main", "main").with("ROWS", 2_u32);
        let expanded = expand(&shader, &[("main", main), ("part", "shared")]).unwrap();
        assert_eq!(
            expanded.text,
            "alias STORED = f32;\nconst ROWS: u32 = 2u;\nshared\na0.x = b[0 + $j];\na0.y = b[0 + $j];\na1.x = b[1 + $j];\na1.y = b[1 + $j];\nlast\n"
        );
    }

    #[test]
    fn errors_name_the_file_and_line_that_was_written() {
        let main = "first\n//: for i in 0..2\nsecond\nthird\n//: end\n//: include part";
        let expanded = expand(&Shader::new("main", "main"), &[("main", main), ("part", "one\ntwo")]).unwrap();
        let place = |line| match expanded.error(line, "wrong") {
            DeviceError::Shader { place, .. } => place,
            other => panic!("{other:?}"),
        };
        // The first line is the type STORED.
        let lines: Vec<String> = (2..=8).map(place).collect();
        let main = |line: usize| format!("wgsl/main.wgsl line {line}");
        let part = |line: usize| format!("wgsl/part.wgsl line {line}");
        assert_eq!(lines, [main(1), main(3), main(4), main(3), main(4), part(1), part(2)]);
    }

    #[test]
    fn mistakes_in_directives_are_errors() {
        for (text, line, problem) in [
            ("x\n//: for i in 0..2", 2, "this loop has no end"),
            ("//: for i in 0..N\n//: end", 1, "no such range"),
            ("//: repeat", 1, "unknown directive"),
        ] {
            let error = expand(&Shader::new("main", "main"), &[("main", text)]).err();
            let place = format!("wgsl/main.wgsl line {line}");
            assert_eq!(error, Some(DeviceError::Shader { place, problem: problem.into() }));
        }
        assert!(expand(&Shader::new("main", "main"), &[("main", "//: include nothing")]).is_err());
    }
}
