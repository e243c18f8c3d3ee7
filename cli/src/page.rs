//! Reports as one HTML page that needs nothing else.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// A page that is being written, from the top down.
#[derive(Debug)]
pub struct Page {
    title: String,
    parts: Vec<Markup>,
}

/// How a row of a table is marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// Not at all.
    #[default]
    None,
    /// As good.
    Good,
    /// As bad.
    Bad,
    /// As of no concern.
    Pale,
}

impl Page {
    /// A page with nothing but its title.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), parts: Vec::new() }
    }

    /// Adds a paragraph.
    pub fn text(&mut self, text: &str) {
        self.parts.push(html! { p { (text) } });
    }

    /// Adds a table with a heading; `head` may be empty. The first cell of a row is its name.
    pub fn table(
        &mut self,
        heading: &str,
        head: &[&str],
        rows: impl IntoIterator<Item = (Mark, Vec<String>)>,
    ) {
        self.parts.push(html! {
            h2 { (heading) }
            div.wide {
                table {
                    @if !head.is_empty() {
                        thead { tr { @for name in head { th scope="col" { (name) } } } }
                    }
                    tbody {
                        @for (mark, cells) in rows {
                            tr.(mark.class()) {
                                @for (index, cell) in cells.iter().enumerate() {
                                    @if index == 0 {
                                        th scope="row" { (cell) }
                                    } @else {
                                        td { (cell) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        });
    }

    /// Adds a chart, in SVG that this program has drawn.
    pub fn chart(&mut self, svg: String) {
        self.parts.push(html! { figure.wide { (PreEscaped(svg)) } });
    }

    /// The page.
    pub fn finish(self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    main {
                        h1 { (self.title) }
                        @for part in &self.parts { (part) }
                    }
                }
            }
        };
        page.into_string()
    }
}

impl Mark {
    fn class(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Pale => "pale",
        }
    }
}

const STYLE: &str = "\
:root { --paper: #ffffff; --ink: #24292f; --grid: #d0d7de;
  --good: #1a7f37; --bad: #cf222e; --pale: #57606a }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --ink: #e6edf3; --grid: #30363d;
    --good: #3fb950; --bad: #ff7b72; --pale: #9198a1 }
}
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
main { max-width: 60rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem }
.wide { overflow-x: auto; margin: 0 0 1rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.75rem 0.35rem 0;
  border-bottom: 1px solid var(--grid) }
th { font-weight: 600 } tbody th { min-width: 6rem } td { overflow-wrap: break-word }
@media (max-width: 40rem) {
  thead { display: none } tr, tbody th, td { display: block }
  tr { border-bottom: 1px solid var(--grid); padding: 0.5rem 0 }
  tbody th, td { border: 0; padding: 0; overflow-wrap: anywhere }
}
.good th { color: var(--good) } .bad th, .bad td { color: var(--bad) }
.pale th, .pale td { color: var(--pale) }
figure svg { width: 100%; min-width: 36rem; height: auto }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_whole_and_what_is_written_in_it_is_text() {
        let mut page = Page::new("a <b> & c");
        page.text("<script>alert(1)</script>");
        page.table("t", &["n"], [(Mark::Bad, vec!["<i>".to_owned(), "\"".to_owned()])]);
        page.chart("<svg></svg>".to_owned());
        let page = page.finish();
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
        for part in
            ["a &lt;b&gt; &amp; c", "&lt;script&gt;", "&lt;i&gt;", "<svg></svg>", "class=\"bad\""]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        // Nothing is fetched.
        assert!(!page.contains("<script") && !page.contains("href") && !page.contains("src="));
    }
}
