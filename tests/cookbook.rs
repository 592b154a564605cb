//! The examples, and their quotes in `docs/cookbook.md`.
//!
//! `make cookbook` writes the examples into the page: it runs the first test with `SHMEM_COOKBOOK=write`.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use testkit::{Outcome, skip};

const PAGE: &str = "docs/cookbook.md";
/// The length of an example in lines, with its comments.
const MAX_LINES: usize = 40;
/// Examples that are longer, and not on the page.
const LONG: [&str; 2] = ["served", "tokio_socket"];

fn main() -> std::process::ExitCode {
    let mut trials = vec![
        testkit::trial("the_page_quotes_the_examples", the_page_quotes_the_examples),
        testkit::trial(
            "examples_are_short_and_on_the_page",
            examples_are_short_and_on_the_page,
        ),
    ];
    for name in quoted(&page()) {
        trials.push(testkit::trial(format!("runs::{name}"), move || runs(&name)));
    }
    trials.push(testkit::trial(
        "frames::all_transports_are_checked",
        frames_of_all_transports,
    ));
    trials.push(testkit::trial(
        "frames::a_killed_consumer_is_replaced",
        frames_with_a_killed_consumer,
    ));
    trials.push(testkit::trial(
        "frames::a_wrong_frame_is_an_error",
        a_wrong_frame_is_an_error,
    ));
    trials.push(testkit::trial(
        "frames::consumers_end_with_the_producer",
        consumers_end_with_the_producer,
    ));
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials).exit_code()
}

fn in_the_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(in_the_repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn page() -> String {
    read(PAGE)
}

/// Returns the name in the line before a quote.
fn marked(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- examples/")?.strip_suffix(".rs -->")
}

/// Returns the names of the examples on the page.
fn quoted(page: &str) -> Vec<String> {
    page.lines().filter_map(marked).map(str::to_owned).collect()
}

/// Returns the page with the examples as they are now.
fn refreshed(page: &str) -> String {
    let mut lines = page.lines().peekable();
    let mut refreshed = String::new();
    while let Some(line) = lines.next() {
        refreshed.extend([line, "\n"]);
        let Some(name) = marked(line) else { continue };
        if lines.peek() == Some(&"```rust") {
            // The old quote, with the end of the block.
            while lines.next().is_some_and(|line| line != "```") {}
        }
        refreshed.extend(["```rust\n", &read(&format!("examples/{name}.rs")), "```\n"]);
    }
    refreshed
}

fn the_page_quotes_the_examples() -> Outcome {
    let page = page();
    let refreshed = refreshed(&page);
    if env::var_os("SHMEM_COOKBOOK").is_some_and(|value| value == "write") {
        return Ok(fs::write(in_the_repository(PAGE), refreshed)?);
    }
    assert!(
        page == refreshed,
        "{PAGE} does not quote the examples as they are: `make cookbook`"
    );
    Ok(())
}

fn examples_are_short_and_on_the_page() -> Outcome {
    let on_the_page = quoted(&page());
    for entry in fs::read_dir(in_the_repository("examples"))? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() || LONG.contains(&&*name) {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let lines = text.lines().count();
        assert!(
            lines <= MAX_LINES,
            "{name}: {lines} lines, and not {MAX_LINES}"
        );
        assert!(
            text.contains("#![forbid(unsafe_code)]"),
            "{name}: unsafe code is not forbidden"
        );
        assert!(on_the_page.contains(&name), "{name} is not on the page");
    }
    Ok(())
}

/// Returns the command of an example that Cargo has built beside this test.
fn example(name: &str) -> Outcome<Command> {
    if !cfg!(target_os = "linux") {
        return skip("not on this system: some examples need Linux to run");
    }
    let test = env::current_exe()?;
    let directory = test
        .ancestors()
        .nth(2)
        .ok_or("no directory")?
        .join("examples");
    let program = directory.join(name);
    let changed = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
    let source = [
        format!("examples/{name}.rs"),
        format!("examples/{name}/main.rs"),
    ];
    let source = source
        .iter()
        .find_map(|path| changed(&in_the_repository(path)));
    match changed(&program) {
        None => skip(format!("{name} is not built: `cargo build --examples`")),
        built if built < source => skip(format!("{name} has changed: `cargo build --examples`")),
        _ => {
            // Ends it, and the processes that it has started, if it blocks.
            let mut command = Command::new("timeout");
            command.args(["--signal=KILL", "60"]).arg(program);
            Ok(command)
        }
    }
}

/// Returns what an example has printed, which has to be successful.
fn output(command: &mut Command) -> Outcome<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output()?;
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{stderr}");
    Ok(String::from_utf8(stdout)?)
}

/// Returns the lines that an example prints according to the page: the block of text before the next example.
fn promised<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let after = page
        .lines()
        .skip_while(|line| marked(line) != Some(name))
        .skip(1);
    let section = after.take_while(|line| marked(line).is_none());
    let text = section.skip_while(|line| *line != "```text").skip(1);
    text.take_while(|line| *line != "```").collect()
}

/// Returns `true` if a line is what the page says, where `…` stands for any text.
fn matches(line: &str, promised: &str) -> bool {
    match promised.split_once('…') {
        None => line == promised,
        Some((start, end)) => line
            .strip_prefix(start)
            .is_some_and(|rest| rest.ends_with(end)),
    }
}

fn runs(name: &str) -> Outcome {
    let output = output(&mut example(name)?)?;
    let (page, found) = (page(), output.lines().collect::<Vec<_>>());
    let promised = promised(&page, name);
    let mut pairs = found.iter().zip(&promised);
    // Where the page quotes no output, any will do.
    let is_as_promised = promised.is_empty()
        || found.len() == promised.len() && pairs.all(|(found, promised)| matches(found, promised));
    assert!(
        is_as_promised,
        "{name} prints {found:#?}, and the page says {promised:#?}"
    );
    Ok(())
}

fn frames_of_all_transports() -> Outcome {
    let output = output(example("frames")?.args(["--frames", "20", "--size", "65536"]))?;
    for transport in ["shared memory", "pipes", "Unix sockets"] {
        assert!(output.contains(transport), "{transport}: {output}");
    }
    assert!(
        output.contains("Each of\n3 processes has checked all of them"),
        "{output}"
    );
    Ok(())
}

fn frames_with_a_killed_consumer() -> Outcome {
    let output = output(example("frames")?.args(["--frames", "60", "--size", "4096", "--kill"]))?;
    // 50 frames to warm up, and 60: the program has checked the numbers.
    for text in [
        "is killed with SIGKILL",
        "signal: 9",
        "has joined",
        "every other one all 110",
        "/dev/shm: 0",
    ] {
        assert!(output.contains(text), "{text}: {output}");
    }
    Ok(())
}

fn a_wrong_frame_is_an_error() -> Outcome {
    let mut command = example("frames")?;
    command.env("FRAMES_STREAM", "64").env("FRAMES_TOTAL", "1");
    let mut consumer = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    consumer
        .stdin
        .take()
        .ok_or("no pipe")?
        .write_all(&[1; 64])?;
    let output = consumer.wait_with_output()?;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("frame 0 is wrong"));
    Ok(())
}

fn consumers_end_with_the_producer() -> Outcome {
    let mut command = Command::new(example("frames")?.get_args().last().ok_or("no program")?);
    command.args(["--kill", "--frames", "1000000", "--size", "64"]);
    let mut producer = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Printed when all consumers have joined, long before one of them is killed.
    let mut output = BufReader::new(producer.stdout.take().ok_or("no pipe")?);
    output.read_line(&mut String::new())?;
    producer.kill()?;
    producer.wait()?;
    let mut errors = producer.stderr.take().ok_or("no pipe")?;
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        // The consumers have the other end of this pipe as well, so it ends when all of them have ended.
        let _ = sender.send(errors.read_to_string(&mut text).map(|_| text));
    });
    let errors = ended.recv_timeout(Duration::from_secs(60))??;
    assert_eq!(
        errors.matches("the producer has ended").count(),
        3,
        "{errors}"
    );
    Ok(())
}
