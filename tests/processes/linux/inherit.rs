//! `inherit`: a descriptor for one program.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, geteuid, kill_process};
use shmem_providers::{
    MemfdBackend, MemfdShMemProvider, RcShMemProvider, ServedShMemProvider, ShMem, ShMemProvider,
    StdShMem, StdShMemPool, StdShMemProvider,
};

use super::descriptors::WITH_FD;
use super::peer::{
    ALL, Answer, Commands, Peer, State, can_start_by, done, here, provider, public_program,
};
use super::users::namespaces;
use testkit::peer::AS_OTHER;
use testkit::{Outcome, name_exists, says_not_found, skip};

const NAME: &str = "SHMEM_TEST_INHERITED";
const FD_NAME: &str = "SHMEM_TEST_INHERITED_FD";

/// Returns a value that a command puts into the environment.
fn value(command: &Command, name: &str) -> Option<String> {
    let mut all = command.get_envs();
    let (_, value) = all.find(|(found, _)| *found == OsStr::new(name))?;
    Some(value?.to_str()?.to_owned())
}

/// Returns the command that starts a peer by a wrapper.
fn command_by(wrapper: &[&str]) -> Command {
    let mut command = Command::new(wrapper[0]);
    let arguments = command.args(&wrapper[1..]);
    arguments.arg(public_program()).arg("peer");
    command
}

/// Creates a segment of 5000 bytes, the last of which is 42.
fn segment(mechanism: &str) -> Result<StdShMem, String> {
    let created = provider(mechanism)?.new_shmem(5000);
    let mut segment = created.map_err(|error| error.to_string())?;
    segment[4999] = 42;
    Ok(segment)
}

/// Starts a peer by the wrapper that cannot open the segment by its id, and checks that it attaches to
/// what it inherits.
fn assert_only_inherited(mechanism: &str, wrapper: &[&str]) -> Outcome {
    can_start_by(wrapper)?;
    let mut segment = segment(mechanism)?;
    let mut command = command_by(wrapper);
    segment.hand_over(&mut command, NAME)?;
    let error = Peer::started(&mut command).open_from_env(NAME);
    let error = error.expect_err("the id opens nothing here");
    assert!(!error.contains("_FD"), "{error}");
    let mut command = command_by(wrapper);
    segment.inherit(&mut command, NAME)?;
    let mut peer = Peer::started(&mut command);
    assert_eq!(peer.open_from_env(NAME)?, 5000);
    assert_eq!(peer.get(4999)?, 42);
    peer.put(0, 7)?;
    assert_eq!(segment[0], 7);
    segment[1] = 8;
    assert_eq!(peer.get(1)?, 8);
    Ok(())
}

pub(crate) fn a_program_inherits_the_segment() -> Outcome {
    for mechanism in here(WITH_FD) {
        let mut segment = segment(mechanism)?;
        let mut command = Peer::command();
        segment.inherit(&mut command, NAME)?;
        // The same command can start several programs.
        for _ in 0..2 {
            let mut peer = Peer::started(&mut command);
            assert_eq!(peer.ask("fd count")?, "1 1", "{mechanism}");
            assert_eq!(peer.open_from_env(NAME)?, 5000);
            assert_eq!(peer.ask("fd count")?, "1 0", "{mechanism}");
            assert_eq!(peer.get(4999)?, 42);
            peer.put(0, 7)?;
            assert_eq!(segment[0], 7);
            segment[0] = 0;
            assert_eq!(peer.ask("fd id")?, segment.id().as_str());
            peer.clone_newest()?;
            peer.drop_newest()?;
            peer.drop_newest()?;
            assert_eq!(peer.ask("fd count")?, "0 0", "{mechanism}");
        }
    }
    // From a provider that is shared by threads, and by one.
    let mut segment = RcShMemProvider::<StdShMemProvider>::new()?.new_shmem(100)?;
    segment[99] = 1;
    let mut command = Peer::command();
    segment.inherit(&mut command, NAME)?;
    for provider in ["counted", "pool"] {
        let mut peer = Peer::started(&mut command);
        assert_eq!(peer.ask(format!("inherit by {provider} {NAME}"))?, "100 1");
        if segment.id().as_str().starts_with('m') {
            assert_eq!(peer.ask("fd count")?, "1 0", "{provider}");
        }
    }
    Ok(())
}

pub(crate) fn system_v_segments_are_handed_over() -> Outcome {
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let segment = segment("sysv")?;
    let mut command = Peer::command();
    segment.inherit(&mut command, NAME)?;
    assert_eq!(value(&command, FD_NAME), None);
    let mut peer = Peer::started(&mut command);
    assert_eq!(peer.open_from_env(NAME)?, 5000);
    assert_eq!(peer.get(4999)?, 42);
    Ok(())
}

pub(crate) fn no_other_program_inherits_it() -> Outcome {
    for mechanism in here(WITH_FD) {
        let segment = segment(mechanism)?;
        let mut command = Peer::command();
        segment.inherit(&mut command, NAME)?;
        let mut before = Peer::start();
        let mut peer = Peer::started(&mut command);
        let mut after = Peer::start();
        for other in [&mut before, &mut after] {
            assert_eq!(other.ask("fd count")?, "0 0", "{mechanism}");
        }
        // What the child starts inherits it until the child has attached.
        assert_eq!(peer.ask("fd of-child")?, "1", "{mechanism}");
        for _ in 0..2 {
            peer.open_from_env(NAME)?;
            assert_eq!(peer.ask("fd of-child")?, "0", "{mechanism}");
        }
    }
    Ok(())
}

pub(crate) fn a_command_holds_the_segment() -> Outcome {
    for mechanism in here(WITH_FD) {
        let mut command = Peer::command();
        let id = {
            let segment = segment(mechanism)?;
            segment.inherit(&mut command, NAME)?;
            segment.id()
        };
        let mut peer = Peer::started(&mut command);
        assert_eq!(peer.open_from_env(NAME)?, 5000, "{mechanism}");
        assert_eq!(peer.get(4999)?, 42);
        assert!(!name_exists(id.as_str()));
        drop(peer);
        drop(command);
        let error = Peer::start().open(&id).expect_err("nobody holds it");
        assert!(says_not_found(&error), "{error}");
    }
    Ok(())
}

pub(crate) fn it_works_in_another_pid_namespace() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let is_root = geteuid().is_root();
    let user: &[&str] = if is_root {
        &[]
    } else {
        &["--map-current-user"]
    };
    let rest: &[&str] = &["--pid", "--fork", "--mount-proc", "--kill-child"];
    assert_only_inherited("memfd", &[&["unshare"], user, rest].concat())
}

/// Where there is no `/proc`, and where another `/dev/shm` is mounted.
pub(crate) fn it_works_where_the_id_means_nothing() -> Outcome {
    for (mechanism, directory) in [("memfd", "/proc"), ("posix", "/dev/shm")] {
        if here(ALL).contains(&mechanism) {
            let wrapper = namespaces("-m", &format!("mount -t tmpfs tmpfs {directory}"));
            let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
            assert_only_inherited(mechanism, &wrapper)?;
        }
    }
    Ok(())
}

/// As a user without capabilities, who may not look into such a parent.
pub(crate) fn it_works_for_undumpable_parents() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    can_start_by(AS_OTHER)?;
    let mut parent = Peer::start_by(AS_OTHER);
    let answer = parent.ask(format!("inherit undumpable {NAME}"))?;
    assert_eq!(answer, "5000 42");
    Ok(())
}

/// Starts a peer to which the segment is handed over, with this description of a descriptor.
fn started_with(segment: &StdShMem, command: &mut Command, text: &str) -> Outcome<Peer> {
    segment.hand_over(command, NAME)?;
    command.env(FD_NAME, text);
    Ok(Peer::started(command))
}

pub(crate) fn forged_numbers_are_left_alone() -> Outcome {
    for mechanism in here(WITH_FD) {
        let (ours, other) = (segment(mechanism)?, segment(mechanism)?);
        let mut command = Peer::command();
        ours.inherit(&mut command, NAME)?;
        let genuine = value(&command, FD_NAME).ok_or("no variable")?;
        let [number, device, inode, id] = genuine.split(':').collect::<Vec<_>>()[..] else {
            return Err(format!("{genuine:?}").into());
        };
        let object = format!("{device}:{inode}:{id}");
        let mut texts = vec![
            String::new(),
            "hello".to_owned(),
            number.to_owned(),
            format!("{number}:{device}:{inode}"),
            format!("{number}:{device}:x:{id}"),
            format!(" {genuine}"),
            format!("{genuine}:"),
            format!("99999999999999999999:{object}"),
            format!("{number}:99999999999999999999:{inode}:{id}"),
        ];
        for number in [
            "-1",
            "-100",
            "0",
            "1",
            "2",
            "1000000",
            "2147483647",
            "2147483648",
        ] {
            texts.push(format!("{number}:{object}"));
        }
        for text in texts {
            let mut peer = started_with(&ours, &mut Peer::command(), &text)?;
            assert_eq!(peer.open_from_env(NAME)?, 5000, "{text:?}");
            assert_eq!(peer.ask("fd count")?, "1 0", "{text:?}");
            for stream in 0..3 {
                let is_open = peer.ask(format!("fd is-open {stream}"))?;
                assert_eq!(is_open, "true", "{text:?}");
            }
        }
        // The number of another segment, which the peer inherits under another name. What is said about
        // the object is true of our segment, or, except for the id, of the other.
        let mut command = Peer::command();
        other.inherit(&mut command, "SHMEM_TEST_OTHER")?;
        let of_other = value(&command, "SHMEM_TEST_OTHER_FD").ok_or("no variable")?;
        let (number, its_object) = of_other.split_once(':').ok_or("no number")?;
        let with_our_id = its_object.replace(other.id().as_str(), id);
        for object in [&object, &with_our_id] {
            let text = format!("{number}:{object}");
            let mut peer = started_with(&ours, &mut command, &text)?;
            assert_eq!(peer.open_from_env(NAME)?, 5000, "{text}");
            peer.put(0, 9)?;
            assert_eq!((ours[0], other[0]), (9, 0), "{text}");
            assert_eq!(peer.ask("fd count")?, "2 1", "{text}");
            assert_eq!(peer.ask(format!("fd is-open {number}"))?, "true");
            peer.put(0, 0)?;
        }
    }
    Ok(())
}

/// Later, the number may be one that the program has chosen itself.
pub(crate) fn a_number_is_taken_over_at_the_first_call_or_never() -> Outcome {
    for mechanism in here(WITH_FD) {
        let segment = segment(mechanism)?;
        let mut command = Peer::command();
        segment.inherit(&mut command, NAME)?;
        let genuine = value(&command, FD_NAME).ok_or("no variable")?;
        let (_, object) = genuine.split_once(':').ok_or("no number")?;
        let mut peer = started_with(&segment, &mut Peer::command(), &format!("77:{object}"))?;
        assert_eq!(peer.open_from_env(NAME)?, 5000);
        peer.execute("inherit occupy 77")?;
        assert_eq!(peer.ask("fd count")?, "2 1", "{mechanism}");
        assert_eq!(peer.open_from_env(NAME)?, 5000);
        assert_eq!(peer.ask("fd count")?, "3 1", "{mechanism}");
        assert_eq!(peer.ask("fd is-open 77")?, "true");
    }
    Ok(())
}

/// What an earlier segment of the same name has left in the environment is not used.
pub(crate) fn a_later_hand_over_replaces_it() -> Outcome {
    for mechanism in here(WITH_FD) {
        let (first, second) = (segment(mechanism)?, provider(mechanism)?.new_shmem(100)?);
        let mut command = Peer::command();
        first.inherit(&mut command, NAME)?;
        second.hand_over(&mut command, NAME)?;
        assert_eq!(value(&command, FD_NAME), None);
        assert_eq!(Peer::started(&mut command).open_from_env(NAME)?, 100);

        let mut command = Peer::command();
        first.inherit(&mut command, NAME)?;
        let mut peer = Peer::started(&mut command);
        peer.make(mechanism, 100)?;
        peer.execute(format!("write-env {NAME}"))?;
        assert_eq!(peer.open_from_env(NAME)?, 100);

        // By a program that only knows the first two variables.
        let mut command = Peer::command();
        first.inherit(&mut command, NAME)?;
        command.env(NAME, second.id().as_str());
        command.env(format!("{NAME}_SIZE"), "100");
        assert_eq!(Peer::started(&mut command).open_from_env(NAME)?, 100);
    }
    Ok(())
}

pub(crate) fn the_second_call_uses_the_id() -> Outcome {
    for mechanism in here(WITH_FD) {
        let segment = segment(mechanism)?;
        let mut command = Peer::command();
        segment.inherit(&mut command, NAME)?;
        let mut peer = Peer::started(&mut command);
        for count in 1..4 {
            assert_eq!(peer.open_from_env(NAME)?, 5000);
            assert_eq!(peer.ask("fd count")?, format!("{count} 0"), "{mechanism}");
        }
        // Also if the program lets others inherit what it has attached to.
        peer.execute("inherit allow")?;
        assert_eq!(peer.open_from_env(NAME)?, 5000);
        assert_eq!(peer.ask("fd count")?, "4 3", "{mechanism}");
    }
    // Without the parent, a memfd is found in the process itself.
    if here(ALL).contains(&"memfd") {
        let mut command = Peer::command();
        segment("memfd")?.inherit(&mut command, NAME)?;
        let mut peer = Peer::started(&mut command);
        drop(command);
        peer.open_from_env(NAME)?;
        peer.open_from_env(NAME)?;
        assert_eq!(peer.get(4999)?, 42);
    }
    Ok(())
}

pub(crate) fn threads_attach_at_the_same_time() -> Outcome {
    for mechanism in here(WITH_FD) {
        let segment = segment(mechanism)?;
        for _ in 0..10 {
            let mut command = Peer::command();
            segment.inherit(&mut command, NAME)?;
            let mut peer = Peer::started(&mut command);
            assert_eq!(peer.ask(format!("inherit threads {NAME}"))?, "8");
            assert_eq!(peer.ask("fd count")?, "8 0", "{mechanism}");
        }
    }
    Ok(())
}

pub(crate) fn the_child_outlives_a_killed_parent() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let mut family = Peer::start();
    let id = family.make("memfd", 100)?;
    family.put(99, 7)?;
    // From here on, the child reads the commands.
    family.execute(format!("inherit delegate {NAME}"))?;
    assert_eq!(family.open_from_env(NAME)?, 100);
    kill_process(family.process(), Signal::KILL)?;
    let mut third = Peer::start();
    assert_eq!(third.open(&id)?, 100);
    assert_eq!(third.get(99)?, 7);
    family.put(0, 8)?;
    assert_eq!(third.get(0)?, 8);
    Ok(())
}

pub(crate) fn the_error_names_both_reasons() -> Outcome {
    // A program on the way closes the descriptor.
    let script = "fd=${SHMEM_TEST_INHERITED_FD%%:*}; eval \"exec $fd>&-\"; exec \"$@\"";
    // The shell of Debian has descriptors of one digit only.
    let wrapper = ["bash", "-c", script, "bash"];
    can_start_by(&["bash", "-c", "exec \"$@\"", "bash"])?;
    for mechanism in here(WITH_FD) {
        let mut command = command_by(&wrapper);
        segment(mechanism)?.inherit(&mut command, NAME)?;
        let mut peer = Peer::started(&mut command);
        drop(command);
        let error = peer.open_from_env(NAME).expect_err("nobody holds it");
        assert!(error.contains("SHMEM_TEST_INHERITED\": no "), "{error}");
        let reason = "SHMEM_TEST_INHERITED_FD\": the descriptor is not open";
        assert!(error.contains(reason), "{error}");
    }
    Ok(())
}

pub(crate) fn a_segment_that_was_dropped_too_early_is_an_error_that_says_so() -> Outcome {
    for mechanism in here(&["memfd", "sysv", "posix"]) {
        let mut command = Peer::command();
        // A temporary.
        provider(mechanism)?
            .new_shmem(64)?
            .hand_over(&mut command, NAME)?;
        let opened = Peer::started(&mut command).open_from_env(NAME);
        let error = opened.expect_err("nobody holds it");
        assert!(says_not_found(&error), "{error}");
        let cure = "the process that handed it over no longer holds it: keep the segment until the \
                    child has attached";
        assert!(error.contains(cure), "{error}");
    }
    Ok(())
}

/// The kernel does not report holders of the same open file, so the pool could reuse the segment.
pub(crate) fn a_pool_does_not_reuse_it() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    // Pools reuse nothing while another test of this process has a forked child.
    let mut parent = Peer::start();
    let answer = parent.ask(format!("inherit pool {NAME}"))?;
    assert_eq!(answer, "reused, not reused, 7");
    Ok(())
}

pub(crate) fn a_served_segment_needs_no_service() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let directory = tempfile::tempdir()?;
    let address = directory.path().join("service");
    let provider = || ServedShMemProvider::<MemfdBackend>::at(&address);
    let mut segment = provider().new_shmem(100)?;
    segment[99] = 7;
    let id = segment.id();
    let expected = format!("{id} 100 7");
    let mut command = Peer::command();
    segment.inherit(&mut command, NAME)?;
    // Where the child finds no service, and cannot host one.
    let nowhere = directory.path().join("missing").join("service");
    let mut peer = Peer::started(&mut command);
    let answer = peer.ask(format!("inherit served {} {NAME}", nowhere.display()))?;
    assert_eq!(answer, expected);
    drop(peer);
    // Where it finds it, it is a holder like any other, and keeps the segment for new ones.
    let kept = provider().new_shmem(1)?;
    let mut peer = Peer::started(&mut command);
    let answer = peer.ask(format!("inherit served {} {NAME}", address.display()))?;
    assert_eq!(answer, expected);
    drop(segment);
    assert_eq!(provider().shmem_from_id(id)?[99], 7);
    drop(peer);
    drop(kept);
    Ok(())
}

/// Attaches by the provider, and returns the size and the last byte.
fn attach<P: ShMemProvider>(state: &mut State, mut provider: P, name: &str) -> Answer
where
    P::ShMem: Send + 'static,
{
    let segment = provider.existing_from_env(name)?;
    let last = segment.last().copied().unwrap_or_default();
    let answer = format!("{} {last}", segment.len());
    state.others.push(Box::new(segment));
    Ok(answer)
}

/// What a peer does.
pub(crate) fn execute(state: &mut State, words: &[&str]) -> Answer {
    match *words {
        ["by", "counted", name] => attach(state, RcShMemProvider::<StdShMemProvider>::new()?, name),
        ["by", "pool", name] => attach(state, StdShMemPool::new()?, name),
        ["served", address, name] => {
            let mut provider = ServedShMemProvider::<MemfdBackend>::at(address);
            let segment = provider.existing_from_env(name)?;
            let answer = format!("{} {} {}", segment.id(), segment.len(), segment[99]);
            state.others.push(Box::new(segment));
            Ok(answer)
        }
        // Attaches in eight threads at once, and returns how many have succeeded.
        ["threads", name] => {
            let attached: Vec<_> = thread::scope(|scope| {
                let attach = || StdShMemProvider::new()?.existing_from_env(name);
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(attach)).collect();
                threads.into_iter().map(|thread| thread.join()).collect()
            });
            for segment in attached {
                let segment = segment.map_err(|_| "a thread has panicked")?;
                state.segments.push(segment?);
            }
            Ok(state.segments.len().to_string())
        }
        // Lets programs inherit all segments.
        ["allow"] => {
            for segment in &state.segments {
                fcntl_setfd(segment.try_as_fd()?, FdFlags::empty())?;
            }
            done()
        }
        // Gives the newest segment a second descriptor with this number, which programs inherit.
        ["occupy", number] => {
            let fd = state.newest()?.try_as_fd()?.as_raw_fd();
            let number = number.parse()?;
            // SAFETY: the call takes no pointer, and nothing has the number.
            if unsafe { libc::dup2(fd, number) } != number {
                return Err(std::io::Error::last_os_error().into());
            }
            // SAFETY: the descriptor is new.
            state.decoy = Some(unsafe { OwnedFd::from_raw_fd(number) });
            done()
        }
        // Hands a segment to a child that may not look into this process.
        ["undumpable", name] => {
            state.execute(&["undumpable"])?;
            // The default creates no memfd in such a process.
            let mut segment = MemfdShMemProvider::new()?.new_shmem(5000)?;
            segment[4999] = 42;
            let mut command = Peer::command();
            segment.hand_over(&mut command, name)?;
            match Peer::started(&mut command).open_from_env(name) {
                Ok(_) => return Err("the id opens it".into()),
                Err(error) if says_not_found(&error) => {}
                Err(error) => return Err(error.into()),
            }
            segment.inherit(&mut command, name)?;
            let mut child = Peer::started(&mut command);
            let size = child.open_from_env(name)?;
            Ok(format!("{size} {}", child.get(4999)?))
        }
        // Gives a child the streams of this process, and does nothing more.
        ["delegate", name] => {
            let mut command = Peer::command();
            command.stdin(Stdio::inherit()).stdout(Stdio::inherit());
            state.newest()?.inherit(&mut command, name)?;
            let _child = command.spawn()?;
            println!("ok ");
            loop {
                thread::park();
            }
        }
        // Lets a child inherit a segment of a pool.
        ["pool", name] => {
            let mut pool = StdShMemPool::new()?;
            let first = pool.new_shmem(4096)?;
            let id = first.id();
            drop(first);
            let is = |reused| if reused { "reused" } else { "not reused" };
            let mut segment = pool.new_shmem(4096)?;
            let before = is(segment.id() == id);
            segment.fill(7);
            let mut command = Peer::command();
            segment.inherit(&mut command, name)?;
            let mut child = Peer::started(&mut command);
            child.open_from_env(name)?;
            drop(segment);
            let after = is(pool.new_shmem(4096)?.id() == id);
            Ok(format!("{before}, {after}, {}", child.get(4095)?))
        }
        _ => Err(format!("unknown command {words:?}").into()),
    }
}
