//! Traces in every form, and what is wrong with some.

use std::io::{Cursor, Read};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::*;

fn open(text: &[u8], options: &Options) -> Result<Trace, TraceError> {
    Trace::read("t.csv", Cursor::new(text.to_vec()), options)
}

fn read_by(text: impl AsRef<[u8]>, options: &Options) -> Result<Vec<Request>, TraceError> {
    open(text.as_ref(), options)?.collect()
}

fn read(text: impl AsRef<[u8]>) -> Result<Vec<Request>, TraceError> {
    read_by(text, &Options::default())
}

fn message(text: impl AsRef<[u8]>) -> String {
    read(text).unwrap_err().to_string()
}

fn columns(names: &str) -> Options {
    Options { columns: Some(names.parse().unwrap()), ..Options::default() }
}

const HEAD: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
const BURST: &str = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n";

#[test]
fn arrivals_are_microseconds_after_the_first() {
    let text =
        format!("{HEAD}2023-11-16 23:59:59.9999999,1,2\r\n\n2023-11-17 00:00:00.5,16777216,0");
    let requests = read(text).unwrap();
    assert_eq!(requests[0], Request { arrival: 0, prompt: 1, generated: 2 });
    assert_eq!(requests[1], Request { arrival: 500_001, prompt: 1 << 24, generated: 0 });
}

#[test]
fn columns_are_found_by_name() {
    let text = "\u{feff}\"generatedtokens\",id,timestamp,ContextTokens\n\
                7,\"a, \"\"b\"\"\",\"2024-05-10 00:00:00.009930+00:00\",9,\n";
    assert_eq!(read(text).unwrap(), [Request { arrival: 0, prompt: 9, generated: 7 }]);
}

/// The same requests in every form, and in every dress.
#[test]
fn the_head_tells_the_form() {
    let expected = [
        Request { arrival: 0, prompt: 472, generated: 18 },
        Request { arrival: 40_500_000, prompt: 1087, generated: 230 },
    ];
    let azure = format!("{HEAD}2023-11-16 18:17:03,472,18\n2023-11-16T18:17:43.5Z,1087,230\n");
    let burst = format!("{BURST}5,ChatGPT,472,18,490,API log\n45.5,GPT-4,1087,230,1317,API log\n");
    let mooncake = "{\"timestamp\": 5000, \"input_length\": 472, \"output_length\": 18}\n\
                    {\"output_length\":230,\"timestamp\":45500,\"input_length\":1087,\"x\":[]}\n";
    for (format, text) in [
        (Format::Azure, azure.as_str()),
        (Format::BurstGpt, burst.as_str()),
        (Format::Mooncake, mooncake),
    ] {
        let mut dresses = vec![
            text.to_owned(),
            text.replace('\n', "\r\n"),
            format!("\u{feff}{text}"),
            format!("# comment\n\n{}\n# more\n  \n", text.replace('\n', "\n#, \"\n")),
            text.trim_end().to_owned(),
        ];
        if format != Format::Mooncake {
            dresses.extend([";", "\t", "|"].map(|delimiter| text.replace(',', delimiter)));
            dresses.push(text.replace(',', " , "));
            dresses.push(
                text.replace(',', "\",\"")
                    .replace("\n", "\"\n\"")
                    .trim_end_matches('"')
                    .replacen("", "\"", 1),
            );
        }
        for dress in dresses {
            let trace = open(dress.as_bytes(), &Options::default()).unwrap();
            assert_eq!(*trace.format(), format, "{dress}");
            assert_eq!(trace.map(Result::unwrap).collect::<Vec<_>>(), expected, "{dress}");
        }
    }
}

#[test]
fn other_tables_have_their_columns_named() {
    let text = "id;arrived at;in;out\n\"1;2\";1700000000000;10.0;3\n2;1700000000250;20.0;4\n";
    let options = Options { unit: Unit::Ms, ..columns("time=arrived at,input=in,output=out") };
    let requests = read_by(text, &options).unwrap();
    assert_eq!(requests[1], Request { arrival: 250_000, prompt: 20, generated: 4 });
    let error = read_by(text, &columns("time=when,input=in,output=out")).unwrap_err();
    assert!(error.to_string().starts_with("t.csv:1:1: no column when"), "{error}");
    let error = read_by("a,A,b,c\n", &columns("time=a,input=b,output=c")).unwrap_err();
    assert!(error.to_string().starts_with("t.csv:1:1: there is more than one column a"), "{error}");
}

#[test]
fn an_offset_is_part_of_the_moment() {
    let requests =
        read(format!("{HEAD}2023-11-16 18:17:03.9+02:00,1,1\n2023-11-16 17:17:03.9+00:00,1,1\n"));
    assert_eq!(requests.unwrap()[1].arrival, 3_600_000_000);
}

#[test]
fn what_is_not_in_order_is_refused_or_sorted() {
    let text = format!("{BURST}7,m,1,1,2,l\n-2,m,2,2,4,l\n7,m,3,3,6,l\n6.5,m,4,4,8,l\n");
    assert!(message(&text).starts_with("t.csv:3:1: the time goes backwards"));
    let options = Options { unsorted: Unsorted::Sort, ..Options::default() };
    let trace = open(text.as_bytes(), &options).unwrap();
    assert_eq!(trace.reordered(), 2);
    let sorted: Vec<_> = trace.map(Result::unwrap).map(|r| (r.arrival, r.prompt)).collect();
    assert_eq!(sorted, [(0, 2), (8_500_000, 4), (9_000_000, 1), (9_000_000, 3)]);
    let error = read_by(BURST, &options).unwrap_err();
    assert!(error.to_string().starts_with("t.csv:2:1: there are no requests"), "{error}");
}

#[test]
fn prefixes_that_repeat_need_no_prefill() {
    let row = |ids: &str| {
        format!(
            "{{\"timestamp\":0,\"input_length\":1500,\"output_length\":1,\"hash_ids\":{ids}}}\n"
        )
    };
    let text = [row("[1,2,3]"), row("[1,2,4]"), row("[5,2,4]")].concat();
    let prompts = |options: &Options| {
        let requests = read_by(&text, options).unwrap();
        requests.iter().map(|request| request.prompt).collect::<Vec<_>>()
    };
    let options = Options { prefix_cache: true, ..Options::default() };
    assert_eq!(prompts(&Options::default()), [1500; 3]);
    assert_eq!(prompts(&options), [1500, 1500 - 1024, 1500]);
    for text in [row("null").as_bytes(), HEAD.as_bytes()] {
        let error = read_by(text, &options).unwrap_err();
        assert!(error.to_string().starts_with("t.csv:1:1: there are no hash_ids"), "{error}");
    }
}

#[test]
fn a_broken_table_is_told_with_its_line_and_column() {
    let row = |row: &str| message(format!("{HEAD}2023-11-16 18:17:03.1,1,1\n{row}\n"));
    for (message, start) in [
        (message(""), "t.csv:1:1: the file is empty"),
        (message(HEAD), "t.csv:2:1: there are no requests"),
        (message("TIMESTAMP,ContextTokens\n1,2\n"), "t.csv:1:1: no column GeneratedTokens, which"),
        (message("a,b\n1,2\n"), "t.csv:1:1: the head names no columns of a known trace"),
        (message(b"\x7fELF\x02\x01\x01\0\0\0"), "t.csv:1:8: this is not text"),
        (message([b"TIMESTAMP", [0xff; 9].as_slice()].concat()), "t.csv:1:10: this is not text"),
        (row("2023-11-16 18:17:03.2,-5,1"), "t.csv:3:23: ContextTokens is \"-5\""),
        (row("2023-11-16 18:17:03.2,1,16777217"), "t.csv:3:25: GeneratedTokens is \"16777217\""),
        (row("2023-11-16 18:17:03.2,99999999999999999999,1"), "t.csv:3:23: ContextTokens is "),
        (row("2023-11-16 18:17:03.2,1.5,1"), "t.csv:3:23: ContextTokens is \"1.5\""),
        (row("2023-11-16 18:17:03.0,1,1"), "t.csv:3:1: the time goes backwards"),
        (row("2022-11-16 18:17:03.2,1,1"), "t.csv:3:1: the time goes backwards"),
        (row("yesterday,1,1"), "t.csv:3:1: TIMESTAMP is \"yesterday\""),
        (row("2023-02-30 00:00:00.1,1,1"), "t.csv:3:1: TIMESTAMP is "),
        (row("1e300,1,1"), "t.csv:3:1: TIMESTAMP is \"1e300\", which is too far away"),
        (
            row("9999-12-31 23:59:59,1,1"),
            "t.csv:3:1: TIMESTAMP is \"9999-12-31 23:59:59\", which is",
        ),
        // A comma in a number would be a request of 1 token that generates none.
        (
            row("2023-11-16 18:17:03.2,1,000,7"),
            "t.csv:3:29: the line has more fields than the head",
        ),
        (message("[{\"timestamp\":0,\n"), "t.csv:1:1: this is a JSON array"),
        (message("# a\n\n"), "t.csv:3:1: the file is empty, or has nothing but comments"),
        (row("2023-11-16 18:17:03.2,1"), "t.csv:3:24: the line has too few fields"),
        (row("\"2023-11-16\n\n,1,1"), "t.csv:3:1: the field begins with a quote"),
        (row(&"x".repeat(LINE_LIMIT)), "t.csv:3:1: the line is longer than 1048576 bytes"),
        (row(&format!("\"{}", "x\n".repeat(LINE_LIMIT))), "t.csv:3:1: the line is longer than"),
    ] {
        assert!(message.starts_with(start), "{message}, not {start}");
    }
    // Characters are counted, not bytes, and lines of a field that has several.
    let text = format!("id,{HEAD}\"ä\nö\",2023-11-16 18:17:03.1,1,1\nüü,2023-11-16 18:17:03.2,?,1");
    assert!(message(text).starts_with("t.csv:4:26: ContextTokens is \"?\""));
}

#[test]
fn a_broken_object_is_told_with_its_line_and_column() {
    let good = "{\"timestamp\":0,\"input_length\":1,\"output_length\":1}\n";
    for (line, start) in [
        ("{\"timestamp\":0,\"input_length\":1}", "t.csv:2:32: missing field `output_length`"),
        (&good.replace(":1,", ":\"1\","), "t.csv:2:31: invalid type: string"),
        ("{\"timestamp\":", "t.csv:2:13: EOF while parsing"),
        ("5,6", "t.csv:2:1: this is no object"),
        ("[0,1,1,[]]", "t.csv:2:1: this is no object"),
        (&good.replace(":1,", ":1.5,"), "t.csv:2:31: input_length is \"1.5\""),
        (&good.replace(":1,", ":-1,"), "t.csv:2:31: input_length is \"-1\""),
        (
            &good.replace(":0,", ":1e300,"),
            "t.csv:2:14: timestamp is \"1e300\", which is too far away",
        ),
    ] {
        let message = message(format!("{good}{line}\n"));
        assert!(message.starts_with(start), "{message}, not {start}");
    }
}

#[test]
fn columns_of_objects_are_not_looked_for_in_a_head() {
    let options = columns("time=timestamp,input=input_length,output=output_length");
    let error = read_by("{\"timestamp\":0}\n", &options).unwrap_err().to_string();
    assert!(error.starts_with("t.csv:1:1: --columns names columns of a CSV file"), "{error}");
}

#[test]
fn an_error_ends_the_trace() {
    let text = format!("{HEAD}x,1,1\n2023-11-16 18:17:03.2,1,1\n");
    let mut trace = open(text.as_bytes(), &Options::default()).unwrap();
    assert!(trace.next().is_some_and(|request| request.is_err()));
    assert!(trace.next().is_none());
}

/// Bytes without end: a reader that buffers a line would not come back.
#[test]
fn an_endless_line_is_given_up() {
    for byte in [b'1', b'"', b',', b'{'] {
        let endless = BufReader::new(io::repeat(byte));
        let error = Trace::read("zero", endless, &Options::default()).unwrap_err();
        assert!(matches!(error.problem, Problem::TooLong), "{error}");
        assert_eq!(error.line, 1);
    }
}

/// A field that never closes its quote, over lines without end.
#[test]
fn an_endless_record_is_given_up() {
    let endless = BufReader::new(Cursor::new("a,\"b\n").chain(Repeat("c\n")));
    let error = Trace::read("lines", endless, &Options::default()).unwrap_err();
    assert!(matches!(error.problem, Problem::TooLong), "{error}");
}

/// Bytes changed, cut and doubled at random: requests or an error, and nothing else.
#[test]
fn a_damaged_trace_is_an_error_or_requests() {
    let good = [
        format!("{HEAD}2023-11-16 18:17:03.1,1,1\n2023-11-16T18:17:03.2Z,\"2\",3\n"),
        format!("{BURST}5,\"a, \"\"b\"\"\",472,18,490,l\n45.5,ö,1087.0,230,1317,l\n"),
        "{\"timestamp\":0,\"input_length\":9,\"output_length\":1,\"hash_ids\":[1,2]}\n".repeat(3),
    ];
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut below = |end: usize| random.next_u32() as usize % end;
    for round in 0..3000 {
        let mut text = good[round % good.len()].clone().into_bytes();
        for _ in 0..=below(4) {
            let at = below(text.len());
            match below(4) {
                0 => text[at] = u8::try_from(below(256)).unwrap(),
                1 => text.insert(at, b"\",;\n\r{#\0\xef"[below(9)]),
                2 => text.truncate(at + 1),
                _ => text.extend_from_within(at..),
            }
        }
        for unsorted in [Unsorted::Refuse, Unsorted::Sort] {
            let options = Options { unsorted, ..Options::default() };
            match read_by(&text, &options) {
                Ok(requests) => {
                    assert!(requests.is_sorted_by_key(|request| request.arrival), "{round}");
                    assert!(!requests.is_empty(), "{round}");
                }
                Err(error) => assert!(error.line > 0 && error.column > 0, "{round}: {error}"),
            }
        }
    }
}

/// A text over and over.
struct Repeat(&'static str);

impl Read for Repeat {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let copied = buffer.len().min(self.0.len());
        buffer[..copied].copy_from_slice(&self.0.as_bytes()[..copied]);
        Ok(copied)
    }
}
