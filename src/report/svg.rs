//! A snapshot as a picture: the committed parts of the span in rows, blocks coloured by state.
//!
//! ```text
//!   row of 1 MiB   | slab (outline)  [block][block]  [block] |    |
//!   next MiB       | ...                                     |
//! ```

use std::fmt::Write;

use super::snapshot::Snapshot;

impl Snapshot {
    /// The pool as an SVG picture; rows without anything committed are left out. Hovering over a block
    /// shows what it is.
    pub fn to_svg(&self) -> String {
        let row = self.row();
        let mut rows: Vec<u64> = self
            .slabs
            .iter()
            .flat_map(|slab| {
                (slab.address - self.base) / row..=(slab.address - self.base + slab.size as u64 - 1) / row
            })
            .collect();
        rows.dedup();
        let mut picture = Picture { base: self.base, row, rows, body: String::new() };
        for slab in &self.slabs {
            picture.draw("slab", slab.address, slab.size, &slab.to_string());
        }
        for block in &self.blocks {
            picture.draw(&block.state.replace(' ', "-"), block.address, block.size, &block.to_string());
        }
        picture.finish(&format!(
            "{}: {} of {} bytes reserved, {} live, {} retired",
            self.name, self.reserved, self.limit, self.live, self.retired
        ))
    }

    /// Bytes in a row: a power of two, so that there are not too many rows.
    fn row(&self) -> u64 {
        ((self.reserved / MOST_ROWS).next_power_of_two() as u64).max(1 << 20)
    }
}

/// Rectangles so far.
struct Picture {
    base: u64,
    row: u64,
    /// The rows that are shown, in order.
    rows: Vec<u64>,
    body: String,
}

impl Picture {
    /// Draws a range, in as many rows as it touches.
    fn draw(&mut self, class: &str, address: u64, size: usize, title: &str) {
        let (start, end) = (address - self.base, address - self.base + size as u64);
        for row in start / self.row..end.div_ceil(self.row) {
            let Ok(place) = self.rows.binary_search(&row) else { continue };
            let (left, right) = (start.max(row * self.row), end.min((row + 1) * self.row));
            let x = (left - row * self.row) * WIDTH / self.row;
            let width = ((right - left) * WIDTH / self.row).max(1);
            let y = TOP + place * (HEIGHT + GAP);
            // Writing to a string does not fail.
            let _written = writeln!(
                self.body,
                "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\">\
                 <title>{}</title></rect>",
                escaped(title)
            );
        }
    }

    fn finish(self, title: &str) -> String {
        let height = TOP + self.rows.len() * (HEIGHT + GAP);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" \
             font-size=\"12\">\n<style>{STYLE}</style>\n<text x=\"0\" y=\"14\">{}</text>\n{}</svg>\n",
            escaped(title),
            self.body
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const STYLE: &str = ".slab{fill:#f4f4f4;stroke:#999;stroke-width:.5}.allocated{fill:#6aa9e9}.in-use{fill:#2c6fbb}\
                     .retired{fill:#e9b36a}.free{fill:none}";
const MOST_ROWS: usize = 64;
const WIDTH: u64 = 1024;
const HEIGHT: usize = 14;
const GAP: usize = 2;
const TOP: usize = 24;
