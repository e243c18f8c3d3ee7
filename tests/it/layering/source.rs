//! Source text as tokens.

use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A file with its tokens flattened: groups keep their brackets as tokens.
pub(super) struct File {
    pub(super) path: String,
    pub(super) tokens: Vec<Token>,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
    pub(super) literal: bool,
    /// Inside `#[...]`, where documentation lives.
    pub(super) attribute: bool,
}

impl File {
    pub(super) fn new(path: &str, source: &str) -> Self {
        let stream =
            TokenStream::from_str(source).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut tokens = Vec::new();
        flatten(stream, false, &mut tokens);
        Self { path: path.to_owned(), tokens }
    }

    fn text(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |token| &token.text)
    }

    pub(super) fn violation(&self, line: usize, what: impl AsRef<str>) -> String {
        format!("{}:{line}: {}", self.path, what.as_ref())
    }

    /// The folders and the file name that make the module path, without `src`.
    pub(super) fn module(&self) -> Vec<&str> {
        let inner = self.path.split_once("src/").map_or(self.path.as_str(), |(_, inner)| inner);
        let stem = inner.trim_end_matches(".rs").trim_end_matches("/mod");
        if stem == "lib" { Vec::new() } else { stem.split('/').collect() }
    }

    /// Every path in the code, use groups spelt out: `a::{b, c::d}` is `a::b` and `a::c::d`.
    pub(super) fn paths(&self) -> Vec<(Vec<String>, usize)> {
        let mut paths = Vec::new();
        let mut index = 0;
        while index < self.tokens.len() {
            if self.is_name(index) {
                self.path_from(&mut index, &[], &mut paths);
            } else {
                index += 1;
            }
        }
        paths
    }

    fn path_from(
        &self,
        index: &mut usize,
        prefix: &[String],
        paths: &mut Vec<(Vec<String>, usize)>,
    ) {
        let line = self.tokens[*index].line;
        let mut path = prefix.to_vec();
        while self.is_name(*index) {
            path.push(self.text(*index).to_owned());
            *index += 1;
            if self.text(*index) != ":" || self.text(*index + 1) != ":" {
                break;
            }
            *index += 2;
            if self.text(*index) == "{" {
                return self.group_from(index, &path, paths);
            }
        }
        paths.push((path, line));
    }

    fn group_from(
        &self,
        index: &mut usize,
        prefix: &[String],
        paths: &mut Vec<(Vec<String>, usize)>,
    ) {
        *index += 1;
        while *index < self.tokens.len() && self.text(*index) != "}" {
            if self.is_name(*index) {
                self.path_from(index, prefix, paths);
            } else {
                *index += 1;
            }
        }
        *index += 1;
    }

    fn is_name(&self, index: usize) -> bool {
        let Some(token) = self.tokens.get(index) else { return false };
        !token.literal && token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

fn flatten(stream: TokenStream, attribute: bool, tokens: &mut Vec<Token>) {
    let mut previous = String::new();
    for tree in stream {
        let line = tree.span().start().line;
        let mut push = |text: &str, literal| {
            tokens.push(Token { text: text.to_owned(), line, literal, attribute });
        };
        let text = match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                push(open, false);
                let inside = attribute || (open == "[" && matches!(previous.as_str(), "#" | "!"));
                flatten(group.stream(), inside, tokens);
                tokens.push(Token { text: close.to_owned(), line, literal: false, attribute });
                close.to_owned()
            }
            TokenTree::Literal(literal) => {
                push(&literal.to_string(), true);
                String::new()
            }
            other => {
                push(&other.to_string(), false);
                other.to_string()
            }
        };
        previous = text;
    }
}
