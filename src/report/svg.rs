//! A snapshot as a picture: the committed parts of the span in rows, blocks coloured by state.
//!
//! ```text
//!   title, sums, legend                        what a row is
//!             0        256 KiB       512 KiB     768 KiB    1 MiB
//!    0 MiB   | slab (outline)  [block][block]    [block]      |
//!    1 MiB   | ...                                            |
//!   - - - - -  nothing is committed in between
//!   64 MiB   | ...                                            |
//! ```

use std::fmt::Write;

use super::snapshot::Snapshot;
use crate::graph::escaped;

impl Snapshot {
    /// The pool as an SVG picture, for light and dark pages; rows without anything committed are
    /// left out. Hovering over a block shows what it is.
    pub fn to_svg(&self) -> String {
        let mut picture = Picture::new(self);
        picture.head(self);
        picture.axis();
        for slab in &self.slabs {
            picture.draw("slab", slab.address, slab.size, &slab.to_string());
        }
        for block in &self.blocks {
            picture.draw(
                &block.state.replace(' ', "-"),
                block.address,
                block.size,
                &block.to_string(),
            );
        }
        picture.finish(&self.name)
    }

    /// The rows that hold something committed, in order.
    fn rows(&self, row: u64) -> Vec<u64> {
        let rows = |slab: &super::SlabEntry| {
            let start = slab.address - self.base;
            start / row..=(start + slab.size as u64).saturating_sub(1) / row
        };
        let mut rows: Vec<u64> = self.slabs.iter().flat_map(rows).collect();
        rows.dedup();
        rows
    }

    /// Bytes in a row: a power of two, so that there are not too many rows.
    fn row(&self) -> u64 {
        ((self.reserved / MOST_ROWS).next_power_of_two() as u64).max(1 << 20)
    }
}

/// The picture that is drawn so far.
struct Picture {
    base: u64,
    row: u64,
    /// The rows that are shown, in order.
    rows: Vec<u64>,
    body: String,
}

impl Picture {
    fn new(snapshot: &Snapshot) -> Self {
        let row = snapshot.row();
        Self { base: snapshot.base, row, rows: snapshot.rows(row), body: String::new() }
    }

    /// The title, the sums, and what the colours mean.
    fn head(&mut self, of: &Snapshot) {
        let device = of.ordinal.map_or(String::new(), |ordinal| format!(" of device {ordinal}"));
        let kind = of.kind.to_lowercase();
        self.text("title", 0, 18, &format!("pool {}: {kind} memory{device}", of.name));
        let rows =
            format!("rows of {}, named by their offset from {:#x}", bytes(self.row), self.base);
        self.text("label", LEFT + WIDTH, 18, &rows);
        let sums = format!(
            "{} of at most {} committed; live {}, {} of them beyond the requested sizes; retired \
             {}; in caches of threads {}; in no slab {}; lost {}",
            bytes(of.reserved as u64),
            bytes(of.limit as u64),
            bytes(of.live as u64),
            bytes(of.waste as u64),
            bytes(of.retired as u64),
            bytes(of.cached as u64),
            bytes(of.unused as u64),
            bytes(of.lost as u64),
        );
        self.text("", 0, 38, &sums);
        let mut x = 0;
        for (class, name) in LEGEND {
            self.rect(class, (x, 50), (HEIGHT, HEIGHT), name);
            self.text("", x + HEIGHT + 6, 62, name);
            x += HEIGHT + 34 + name.len() as u64 * LETTER;
        }
    }

    /// Sizes above the rows, and where each row begins.
    fn axis(&mut self) {
        for quarter in 0..=4 {
            let x = LEFT + quarter * WIDTH / 4;
            self.text("tick", x, TOP - 8, &bytes(quarter * self.row / 4));
            let (top, bottom) = (TOP - 4, TOP + self.rows.len() as u64 * (HEIGHT + GAP));
            self.add(format_args!("<path class=\"grid\" d=\"M{x} {top}V{bottom}\"/>"));
        }
        for place in 0..self.rows.len() {
            let (row, y) = (self.rows[place], self.y(place));
            self.text("label", LEFT - 8, y + HEIGHT - 3, &bytes(row * self.row));
            if place > 0 && self.rows[place - 1] + 1 != row {
                let y = y - GAP / 2;
                self.add(format_args!("<path class=\"cut\" d=\"M0 {y}H{}\"/>", LEFT + WIDTH));
            }
        }
    }

    /// Draws a range, in as many rows as it touches.
    fn draw(&mut self, class: &str, address: u64, size: usize, title: &str) {
        let start = address.saturating_sub(self.base);
        let end = start + size as u64;
        for row in start / self.row..end.div_ceil(self.row) {
            let Ok(place) = self.rows.binary_search(&row) else { continue };
            let (left, right) = (start.max(row * self.row), end.min((row + 1) * self.row));
            let at = |offset: u64| (offset - row * self.row) * WIDTH / self.row;
            let width = (at(right) - at(left)).max(1);
            // Neighbours are told apart where there is room for a gap.
            let gap = u64::from(width > 3 && class != "slab");
            let corner = (LEFT + at(left), self.y(place));
            self.rect(class, corner, (width - gap, HEIGHT), title);
        }
    }

    fn rect(&mut self, class: &str, (x, y): (u64, u64), (width, height): (u64, u64), title: &str) {
        let title = escaped(title);
        self.add(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\">\
             <title>{title}</title></rect>"
        ));
    }

    fn text(&mut self, class: &str, x: u64, y: u64, text: &str) {
        let text = escaped(text);
        self.add(format_args!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>"));
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _written = writeln!(self.body, "{element}");
    }

    fn y(&self, place: usize) -> u64 {
        TOP + place as u64 * (HEIGHT + GAP)
    }

    fn finish(self, name: &str) -> String {
        let (width, height) = (LEFT + WIDTH + RIGHT, self.y(self.rows.len()) + HEIGHT);
        let (margin, name) = (MARGIN, escaped(name).replace('"', "&quot;"));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" \
             aria-label=\"memory of the pool {name}\" viewBox=\"-{margin} -{margin} {} {}\" \
             width=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <style>{STYLE}</style>\n\
             <rect class=\"paper\" x=\"-{margin}\" y=\"-{margin}\" width=\"100%\" \
             height=\"100%\"></rect>\n{}</svg>\n",
            width + 2 * margin,
            height + 2 * margin,
            width + 2 * margin,
            self.body
        )
    }
}

/// A size for people, exact in its unit or to a tenth of it.
fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let unit = (size.max(1).ilog2() / 10).min(4);
    let (whole, rest) = (size >> (10 * unit), size & ((1 << (10 * unit)) - 1));
    let name = UNITS[unit as usize];
    if rest == 0 {
        format!("{whole} {name}")
    } else {
        format!("{whole}.{} {name}", (rest * 10) >> (10 * unit))
    }
}

/// The colours, by the class that has them.
const LEGEND: [(&str, &str); 4] = [
    ("allocated", "held, not used by the device yet"),
    ("in-use", "held, used by a stream"),
    ("retired", "no handle: free for its stream, or waiting for the device"),
    ("slab", "committed, and free or in a thread's cache"),
];

const STYLE: &str = "\
    text{fill:#24292f}.title{font-size:16px;font-weight:bold}.tick{text-anchor:middle}\
    .label{text-anchor:end}\
    .paper{fill:#fff}.slab{fill:#eaeef2;stroke:#8c959f;stroke-width:.75}.allocated{fill:#80b2eb}\
    .in-use{fill:#0969da}.retired{fill:#d4893b}.free{fill:none}.grid{stroke:#d0d7de}\
    .cut{stroke:#57606a;stroke-dasharray:4 4}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117}\
    .slab{fill:#21262d;stroke:#6e7681}.allocated{fill:#9ecbff}.in-use{fill:#2f81f7}\
    .retired{fill:#e3964a}.grid{stroke:#30363d}.cut{stroke:#8b949e}}";
const MOST_ROWS: usize = 64;
/// The width of a row.
const WIDTH: u64 = 1024;
/// Room for the names of rows.
const LEFT: u64 = 72;
const RIGHT: u64 = 24;
const MARGIN: u64 = 12;
const HEIGHT: u64 = 14;
const GAP: u64 = 4;
/// Where the rows begin.
const TOP: u64 = 96;
/// About what a letter is wide.
const LETTER: u64 = 6;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        let shown = [0, 1023, 1 << 20, (3 << 20) / 2, 1 << 40].map(bytes);
        assert_eq!(shown, ["0 bytes", "1023 bytes", "1 MiB", "1.5 MiB", "1 TiB"]);
    }
}
