//! `inherit`: a descriptor for one program.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, ScopedJoinHandle};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, geteuid, kill_process};
use shmem_providers::{
    MemfdBackend, MemfdShMemProvider, RcShMemProvider, ServedShMemProvider, ShMem, ShMemOptions,
    ShMemProvider, StdShMem, StdShMemPool, StdShMemProvider,
};

use super::descriptors::{SEALED, WITH_FD, memfd};
use super::peer::{
    ALL, Answer, Commands, Peer, State, can_start_by, done, error_when_gone, here, provider,
    public_program,
};
use super::users::namespaces;
use testkit::peer::AS_OTHER;
use testkit::{Outcome, if_lacking, name_exists, says_not_found, skip};

pub(crate) const NAME: &str = "SHMEM_TEST_INHERITED";
pub(crate) const FD_NAME: &str = "SHMEM_TEST_INHERITED_FD";

/// Returns a value that a command puts into the environment.
pub(crate) fn value(command: &Command, name: &str) -> Option<String> {
    let mut all = command.get_envs();
    let (_, value) = all.find(|(found, _)| *found == OsStr::new(name))?;
    Some(value?.to_str()?.to_owned())
}

/// Returns the command that starts a peer by a wrapper.
pub(crate) fn command_by(wrapper: &[&str]) -> Command {
    let mut command = Command::new(wrapper[0]);
    let arguments = command.args(&wrapper[1..]);
    arguments.arg(public_program()).arg("peer");
    command
}

/// Creates a segment of 5000 bytes, the last of which is 42.
pub(crate) fn segment(mechanism: &str) -> Result<StdShMem, String> {
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
        let inherited = peer.ask("fd count")?;
        assert_eq!(peer.ask(format!("inherit by {provider} {NAME}"))?, "100 1");
        if segment.id().as_str().starts_with('m') {
            assert_eq!(inherited, "1 1", "{provider}");
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

pub(crate) fn it_is_inherited_for_reading() -> Outcome {
    for mechanism in here(&["memfd", "posix", "file"]) {
        let segment = segment(mechanism)?;
        let mut command = Peer::command();
        segment.inherit(&mut command, NAME)?;
        // Only the command holds it, so that the id of a POSIX segment opens nothing any more.
        drop(segment);
        let mut peer = Peer::started(&mut command);
        drop(command);
        assert_eq!(
            peer.ask(format!("inherit by reader {NAME}"))?,
            "5000 42",
            "{mechanism}"
        );
        assert_eq!(peer.ask("fd of-child")?, "0", "{mechanism}");
    }
    Ok(())
}

pub(crate) fn a_reader_passes_on_what_it_reads() -> Outcome {
    for mechanism in here(&["memfd", "posix"]) {
        let segment = segment(mechanism)?;
        let reader = provider(mechanism)?.shmem_from_id_read_only(segment.id())?;
        let mut command = Peer::command();
        reader.inherit(&mut command, NAME)?;
        drop((segment, reader));
        let mut peer = Peer::started(&mut command);
        drop(command);
        assert_eq!(
            peer.ask(format!("inherit by reader {NAME}"))?,
            "5000 42",
            "{mechanism}"
        );
        assert_eq!(peer.ask("fd of-child")?, "0", "{mechanism}");
    }
    Ok(())
}

pub(crate) fn a_single_writer_is_received_for_reading() -> Outcome {
    let options = ShMemOptions::new().single_writer();
    let mut provider = MemfdShMemProvider::new()?;
    let (mut segment, _) = match provider.new_shmem_with(100, options) {
        Err(error) => return if_lacking(error),
        created => created?,
    };
    segment[99] = 7;
    let fd = || segment.as_fd().try_clone_to_owned();
    let error = provider
        .shmem_from_fd(fd()?)
        .expect_err("nobody else may write");
    assert!(error.to_string().contains("single writer"), "{error}");
    let reader = provider.shmem_from_fd_read_only(fd()?)?;
    assert_eq!(reader.access().load_u8(99, Relaxed)?, 7);
    Ok(())
}

pub(crate) fn a_file_is_inherited() -> Outcome {
    if here(&["file"]).is_empty() {
        return skip("no files with locks here");
    }
    let segment = segment("file")?;
    let id = segment.id();
    let mut command = Peer::command();
    segment.inherit(&mut command, NAME)?;
    // Without the directory, the id opens nothing.
    let elsewhere = tempfile::tempdir()?;
    let mut peer = Peer::started(command.env("TMPDIR", elsewhere.path()));
    drop((segment, command));
    assert_eq!(peer.open_from_env(NAME)?, 5000);
    assert_eq!(peer.get(4999)?, 42);
    // The peer holds it, so that other processes do not remove it.
    let mut provider = provider("file")?;
    drop(provider.new_shmem(1)?);
    assert_eq!(provider.shmem_from_id(id)?.len(), 5000);
    drop(peer);
    assert!(error_when_gone(|| provider.shmem_from_id(id)).is_not_found());
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
        let error = error_when_gone(|| Peer::start().open(&id));
        assert!(says_not_found(&error), "{error}");
    }
    Ok(())
}

pub(crate) fn it_works_in_another_pid_namespace() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let is_root = geteuid().is_root();
    let user: &[&str] = if is_root { &[] } else { &["--map-root-user"] };
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

pub(crate) fn it_works_in_bubblewrap() -> Outcome {
    let wrapper = "bwrap --unshare-pid --unshare-ipc --ro-bind / / --dev /dev --proc /proc --";
    let wrapper: Vec<_> = wrapper.split(' ').collect();
    can_start_by(&wrapper)?;
    for mechanism in here(WITH_FD) {
        assert_only_inherited(mechanism, &wrapper)?;
    }
    Ok(())
}

/// Landlock also restricts whose descriptors a process may look at.
pub(crate) fn it_works_under_landlock() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let segment = segment("memfd")?;
    let mut command = Peer::command();
    segment.hand_over(&mut command, NAME)?;
    let mut peer = Peer::started(&mut command);
    if let Err(reason) = peer.ask("landlock") {
        return skip(format!("no Landlock here: {reason}"));
    }
    let opened = peer.open_from_env(NAME);
    opened.expect_err("it may not look at the parent");
    segment.inherit(&mut command, NAME)?;
    let mut peer = Peer::started(&mut command);
    peer.execute("landlock")?;
    assert_eq!(peer.open_from_env(NAME)?, 5000);
    assert_eq!(peer.get(4999)?, 42);
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
    // This one hosts the service.
    let mut host = provider();
    let kept = host.new_shmem(1)?;
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
    let mut peer = Peer::started(&mut command);
    let answer = peer.ask(format!("inherit served {} {NAME}", address.display()))?;
    assert_eq!(answer, expected);
    drop(segment);
    assert_eq!(provider().shmem_from_id(id)?[99], 7);
    drop(peer);
    drop(kept);
    Ok(())
}

/// Who inherits it may read what it may not write.
pub(crate) fn a_served_segment_with_a_single_writer_needs_no_service() -> Outcome {
    let directory = tempfile::tempdir()?;
    let address = directory.path().join("service");
    let mut provider = ServedShMemProvider::<MemfdBackend>::at(&address);
    let created = provider.new_shmem_with(5000, ShMemOptions::new().single_writer());
    let (mut segment, _) = created.or_else(if_lacking)?;
    segment[4999] = 42;
    let mut command = Peer::command();
    segment.inherit(&mut command, NAME)?;
    let nowhere = directory.path().join("missing").join("service");
    let mut peer = Peer::started(&mut command);
    let answer = peer.ask(format!(
        "inherit served-reader {} {NAME}",
        nowhere.display()
    ))?;
    assert_eq!(answer, "5000 42");
    let refused = peer.ask(format!("inherit served {} {NAME}", nowhere.display()));
    assert!(refused.is_err(), "{refused:?}");
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

/// The same for reading.
fn read<P: ShMemProvider>(state: &mut State, mut provider: P, name: &str) -> Answer
where
    P::ShMem: Send + 'static,
{
    let segment = provider.existing_from_env_read_only(name)?;
    let last = segment.access().load_u8(4999, Relaxed)?;
    let answer = format!("{} {last}", segment.len());
    state.others.push(Box::new(segment));
    Ok(answer)
}

/// What a peer does.
pub(crate) fn execute(state: &mut State, words: &[&str]) -> Answer {
    match *words {
        ["by", "reader", name] => read(state, StdShMemProvider::new()?, name),
        ["served-reader", address, name] => {
            let provider = ServedShMemProvider::<MemfdBackend>::at(address);
            read(state, provider, name)
        }
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
                threads.into_iter().map(ScopedJoinHandle::join).collect()
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
        // Gives a descriptor of this number to the newest segment, or to a segment of another program.
        ["occupy", number, what] => {
            let number = number.parse()?;
            // It may get the number itself, so it is created only if it is needed.
            let foreign = (what == "foreign").then(|| memfd("another", 5000, SEALED));
            let foreign = foreign.transpose()?;
            let fd = match &foreign {
                Some(foreign) => foreign.as_fd(),
                None => state.newest()?.try_as_fd()?,
            };
            let flags = if what == "own" { libc::O_CLOEXEC } else { 0 };
            // SAFETY: the call takes no pointer, and nothing has the number.
            if unsafe { libc::dup3(fd.as_raw_fd(), number, flags) } != number {
                return Err(std::io::Error::last_os_error().into());
            }
            // SAFETY: the descriptor is new.
            state.decoy = Some(unsafe { OwnedFd::from_raw_fd(number) });
            done()
        }
        ["variable", name] => Ok(std::env::var(name).unwrap_or_default()),
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
