#![expect(unsafe_code, reason = "reads texts behind the program's pointers")]
//! Images of modules: the names of kernels and variables.
//!
//! Code is not run, so an image is mostly opaque, and has whatever function or variable it is
//! asked for. Only PTX, which is text, can say which names there are.

use core::ffi::{CStr, c_void};

/// Bytes of a variable whose size the image does not say.
const UNKNOWN_SIZE: usize = 8;

/// An image, as far as it is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    /// Machine code, or a container of it.
    Opaque,
    /// PTX: its kernels and its variables.
    Text { kernels: Vec<String>, variables: Vec<Variable> },
}

/// A variable of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// In bytes.
    pub(crate) size: usize,
    /// The initial bytes; the rest is zero.
    pub(crate) initial: Vec<u8>,
    pub(crate) is_managed: bool,
}

impl Image {
    /// Looks at an image in memory, which is text if it begins like text.
    pub(crate) fn at(pointer: *const c_void) -> Self {
        let bytes = pointer.cast::<u8>();
        let mut begin = Vec::new();
        while begin.len() < 256 {
            // SAFETY: the program promised an image; text ends in a zero, where this stops, and
            // what is no text has a header of its own, which is told by its first bytes.
            let byte = unsafe { bytes.wrapping_add(begin.len()).read() };
            if !is_text(byte) {
                break;
            }
            begin.push(byte);
            if begin.ends_with(b".version") || begin.trim_ascii_start().starts_with(b"//") {
                // SAFETY: PTX, which "must be NULL-terminated".
                return Self::of_text(&unsafe { CStr::from_ptr(bytes.cast()) }.to_string_lossy());
            }
        }
        Self::Opaque
    }

    /// Looks at the contents of a file.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        match core::str::from_utf8(bytes) {
            Ok(text) if text.contains(".version") => Self::of_text(text),
            _ => Self::Opaque,
        }
    }

    fn of_text(text: &str) -> Self {
        let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("")).fold(
            String::new(),
            |mut code, line| {
                code.push_str(line);
                code.push('\n');
                code
            },
        );
        let after_entry = code.split(".entry").skip(1);
        let kernels = after_entry.map(|rest| identifier(rest.trim_start()).to_owned()).collect();
        let variables = code.split([';', '{', '}', ')']).filter_map(variable).collect();
        Self::Text { kernels, variables }
    }

    /// Whether there is such a kernel.
    pub(crate) fn has_kernel(&self, name: &str) -> bool {
        match self {
            Self::Opaque => true,
            Self::Text { kernels, .. } => kernels.iter().any(|kernel| kernel == name),
        }
    }

    /// The variable of that name.
    pub(crate) fn variable(&self, name: &str) -> Option<Variable> {
        match self {
            Self::Opaque => Some(Variable {
                name: name.to_owned(),
                size: UNKNOWN_SIZE,
                initial: Vec::new(),
                is_managed: false,
            }),
            Self::Text { variables, .. } => {
                variables.iter().find(|known| known.name == name).cloned()
            }
        }
    }

    /// The kernels that the image says it has.
    pub(crate) fn kernels(&self) -> &[String] {
        match self {
            Self::Opaque => &[],
            Self::Text { kernels, .. } => kernels,
        }
    }
}

fn is_text(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte.is_ascii_whitespace()
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '$' | '%'));
    &text[..end.unwrap_or(text.len())]
}

/// Reads `.visible .global .align 4 .u32 name[4] = {…}`; with braces, the values are lost.
fn variable(statement: &str) -> Option<Variable> {
    let is_variable = [".global ", ".const "].iter().any(|space| statement.contains(space));
    let (declaration, value) = statement.split_once('=').unwrap_or((statement, ""));
    // Instructions such as `ld.global` have their operands behind commas.
    if !is_variable || declaration.contains(',') || declaration.contains("ld.") {
        return None;
    }
    let mut width = None;
    let mut name = None;
    for word in declaration.split_ascii_whitespace() {
        match word.strip_prefix('.') {
            Some(directive) => width = type_width(directive).or(width),
            None if word
                .starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$')) =>
            {
                name = Some(word);
            }
            None => {}
        }
    }
    let (name, width) = (name?, width?);
    let length =
        name.split_once('[').and_then(|(_, rest)| rest.split_once(']')?.0.trim().parse().ok());
    let number = value
        .trim()
        .parse::<i64>()
        .map_or(Vec::new(), |value| value.to_le_bytes()[..width].to_vec());
    Some(Variable {
        name: identifier(name).to_owned(),
        size: width * length.unwrap_or(1_usize),
        initial: number,
        is_managed: declaration.contains(".managed"),
    })
}

/// Bytes of a PTX type.
fn type_width(directive: &str) -> Option<usize> {
    match directive.get(1..)? {
        "8" => Some(1),
        "16" => Some(2),
        "32" => Some(4),
        "64" => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_which_kernels_and_variables_there_are() {
        let text = c"//\n.version 8.0\n.target sm_90\n.visible .const .align 4 .u32 answer = 42;\n\
            .global .align 4 .f32 table[16];\n.visible .entry sum(\n.param .u64 a\n)\n{\n\
            ld.global.u32 %r1, [%rd1];\nret;\n}\n";
        let image = Image::at(text.as_ptr().cast());
        assert!(image.has_kernel("sum") && !image.has_kernel("difference"));
        let answer = image.variable("answer").unwrap();
        assert_eq!((answer.size, answer.initial), (4, vec![42, 0, 0, 0]));
        assert_eq!(image.variable("table").unwrap().size, 64);
        assert_eq!(image.variable("nothing"), None);
    }

    #[test]
    fn what_is_no_text_is_opaque() {
        let image = Image::at(c"\x7fELF".as_ptr().cast());
        assert_eq!(image, Image::Opaque);
        assert!(image.has_kernel("anything"));
    }
}
