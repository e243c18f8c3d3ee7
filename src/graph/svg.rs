//! Graphs as SVG pictures.
//!
//! ```text
//!   column 0        1                2
//!   [ copy ] ──╮
//!   [ copy ] ──┴─> [ word ] ───────> [ event ]
//!   [ fill ] ──── connector ──────────^
//! ```
//!
//! layout-rs assigns columns, the order within a column and positions. Its own drawing is not used:
//! there edges leave a box at the side that is nearest and cross the boxes beside it. Here every
//! box of a column has the same width and an edge leaves to the right, so edges run between columns
//! only. An edge over several columns goes through a connector, for which each column keeps a row.

use core::fmt::Write as _;

use layout::adt::dag::NodeHandle;
use layout::backends::svg::SVGWriter;
use layout::core::base::Orientation;
use layout::core::geometry::{Point, Position};
use layout::core::style::StyleAttr;
use layout::std_shapes::shapes::{Arrow, Element, ShapeKind};
use layout::topo::layout::VisualGraph;

use super::definition::GraphDefinition;
use super::dot::escaped;
use super::record::NodeRecord;

impl GraphDefinition {
    /// Returns the graph as an SVG picture, laid out from left to right: each node's label, kind
    /// and size, and the edges. The picture follows the reader's light or dark colour scheme.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::graph::GraphDefinition;
    ///
    /// let mut graph = GraphDefinition::new(&context)?;
    /// let node = graph.empty(&[])?;
    /// graph.label(node, "begin")?;
    /// assert!(graph.to_svg().contains("begin"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_svg(&self) -> String {
        let titles: Vec<_> = self.nodes.iter().map(NodeRecord::title).collect();
        let letters = titles.iter().flatten().map(|line| line.chars().count()).max().unwrap_or(0);
        let lines = titles.iter().map(Vec::len).max().unwrap_or(0);
        let size = Point::new(
            as_length(letters) * LETTER + 2.0 * MARGIN,
            as_length(lines) * LINE + MARGIN,
        );
        let mut picture = Picture::new(size);
        let boxes: Vec<_> = self.nodes.iter().map(|_| picture.add_box()).collect();
        for (record, to) in self.nodes.iter().zip(&boxes) {
            for before in &record.after {
                picture.graph.add_edge(Arrow::simple(""), boxes[*before as usize], *to);
            }
        }
        if !boxes.is_empty() {
            // The layout alone cannot be asked for: its drawing is discarded.
            picture.graph.do_it(false, false, false, &mut SVGWriter::new());
        }
        picture.draw(&boxes, &titles)
    }
}

/// The layout, and the size of its boxes.
struct Picture {
    graph: VisualGraph,
    size: Point,
}

impl Picture {
    fn new(size: Point) -> Self {
        Self { graph: VisualGraph::new(Orientation::LeftToRight), size }
    }

    fn add_box(&mut self) -> NodeHandle {
        let look = (ShapeKind::new_box(""), StyleAttr::simple(), Orientation::LeftToRight);
        let mut element = Element::create(look.0, look.1, look.2, self.size);
        // The element's own gap of 60 pixels on every side makes the picture twice as high.
        element.pos =
            Position::new(Point::zero(), self.size, Point::zero(), Point::new(COLUMN_GAP, ROW_GAP));
        self.graph.add_node(element)
    }

    fn draw(&self, boxes: &[NodeHandle], titles: &[Vec<String>]) -> String {
        let mut body = String::new();
        let (mut low, mut high) = (self.size.scale(0.5).neg(), self.size.scale(0.5));
        for (index, (node, title)) in boxes.iter().zip(titles).enumerate() {
            let (corner, end) = self.bounds(*node);
            (low, high) = match index {
                0 => (corner, end),
                _ => (pick(low, corner, f64::min), pick(high, end, f64::max)),
            };
            self.draw_box(&mut body, corner, title);
            for next in self.graph.succ(*node) {
                self.draw_edge(&mut body, end.x, *node, *next);
            }
        }
        let (low, size) =
            (low.sub(Point::splat(MARGIN)), high.sub(low).add(Point::splat(2.0 * MARGIN)));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"graph\" \
             viewBox=\"{:.0} {:.0} {:.0} {:.0}\" width=\"{:.0}\" height=\"{:.0}\">\n\
             <style>{STYLE}</style>\n{ARROW}\n{body}</svg>\n",
            low.x, low.y, size.x, size.y, size.x, size.y,
        )
    }

    fn draw_box(&self, body: &mut String, corner: Point, title: &[String]) {
        let Point { x: width, y: height } = self.size;
        // Writing to a string does not fail.
        let _ = writeln!(
            body,
            "<rect x=\"{:.0}\" y=\"{:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" rx=\"4\"/>",
            corner.x, corner.y,
        );
        let first = corner.y + (height - as_length(title.len()) * LINE) / 2.0 + 0.75 * LINE;
        for (index, line) in title.iter().enumerate() {
            let (x, y) = (corner.x + width / 2.0, first + as_length(index) * LINE);
            let class = if index == 0 { "name" } else { "kind" };
            let _ = writeln!(
                body,
                "<text class=\"{class}\" x=\"{x:.0}\" y=\"{y:.0}\">{}</text>",
                escaped(line)
            );
        }
    }

    /// Draws the edge that leaves the box `from` at `x`, by way of `next`: a box, or the first of
    /// some connectors.
    fn draw_edge(&self, body: &mut String, x: f64, from: NodeHandle, next: NodeHandle) {
        let mut at = Point::new(x, self.graph.pos(from).middle().y);
        let mut path = format!("M{:.0} {:.0}", at.x, at.y);
        let mut next = next;
        loop {
            let (corner, end) = self.bounds(next);
            let (to, middle) = (corner.x, self.graph.pos(next).middle().y);
            let bend = (at.x + to) / 2.0;
            let _ =
                write!(path, " C{bend:.0} {:.0} {bend:.0} {middle:.0} {to:.0} {middle:.0}", at.y);
            // A connector is as wide as its column: the edge crosses the column in the row that the
            // layout keeps free for it.
            let after = self.graph.succ(next).first();
            let Some(after) = after.filter(|_| self.graph.is_connector(next)) else { break };
            let _ = write!(path, " H{:.0}", end.x);
            (at, next) = (Point::new(end.x, middle), *after);
        }
        let _ = writeln!(body, "<path d=\"{path}\" marker-end=\"url(#arrow)\"/>");
    }

    /// The corners of a box, or of the room for one round a connector.
    fn bounds(&self, node: NodeHandle) -> (Point, Point) {
        let (middle, half) = (self.graph.pos(node).middle(), self.size.scale(0.5));
        (middle.sub(half), middle.add(half))
    }
}

fn pick(a: Point, b: Point, of: fn(f64, f64) -> f64) -> Point {
    Point::new(of(a.x, b.x), of(a.y, b.y))
}

/// A small number of letters or lines, for sums of pixels.
fn as_length(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The width of a letter, the height of a line and the space round a label, in pixels.
const LETTER: f64 = 6.5;
const LINE: f64 = 16.0;
const MARGIN: f64 = 10.0;
/// Between boxes of neighbouring columns, and of one column, in pixels.
const COLUMN_GAP: f64 = 90.0;
const ROW_GAP: f64 = 12.0;

const STYLE: &str = "\
    text{font:12px system-ui,sans-serif;text-anchor:middle;fill:#57606a}\
    .name{font-weight:600;fill:#1b1f24}rect{fill:#dbeafe;stroke:#2563eb}\
    path{fill:none;stroke:#57606a;stroke-width:1.3}marker path{fill:#57606a}\
    @media(prefers-color-scheme:dark){\
    text{fill:#9198a1}.name{fill:#e6edf3}rect{fill:#1e3a5f;stroke:#60a5fa}\
    path{stroke:#9198a1}marker path{fill:#9198a1}}";
const ARROW: &str = "<marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" \
    markerWidth=\"8\" markerHeight=\"8\" markerUnits=\"userSpaceOnUse\" orient=\"auto\">\
    <path d=\"M0 0 8 4 0 8z\"/></marker>";
