//! Graphs drawn.

use layout::backends::svg::SVGWriter;
use layout::core::base::Orientation;
use layout::core::geometry::Point;
use layout::core::style::StyleAttr;
use layout::std_shapes::shapes::{Arrow, Element, ShapeKind};
use layout::topo::layout::VisualGraph;

use super::definition::GraphDefinition;

impl GraphDefinition {
    /// The graph as an SVG picture, from left to right: each node's label, kind and size, and the
    /// edges.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # // SAFETY: softcuda returns functions with the signatures of the rows.
    /// # let driver = unsafe { wharf::Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
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
        let mut picture = VisualGraph::new(Orientation::LeftToRight);
        let handles: Vec<_> = self
            .nodes
            .iter()
            .map(|record| {
                let lines = record.title();
                let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
                let size =
                    Point::new(as_length(width) * LETTER + MARGIN, as_length(lines.len()) * LINE + MARGIN);
                let (shape, look) = (ShapeKind::new_box(&lines.join("\n")), StyleAttr::simple());
                picture.add_node(Element::create(shape, look, Orientation::LeftToRight, size))
            })
            .collect();
        for (record, to) in self.nodes.iter().zip(&handles) {
            for before in &record.after {
                picture.add_edge(Arrow::simple(""), handles[*before as usize], *to);
            }
        }
        let mut svg = SVGWriter::new();
        if !handles.is_empty() {
            picture.do_it(false, false, false, &mut svg);
        }
        svg.finalize()
    }
}

/// Small numbers of letters and lines.
fn as_length(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The width of a letter and the height of a line in the picture's font, and the space round a
/// label, in pixels.
const LETTER: f64 = 9.0;
const LINE: f64 = 18.0;
const MARGIN: f64 = 16.0;
