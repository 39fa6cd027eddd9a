//! The few calls into the kernel that no safe crate offers: TAP devices, real-time priority,
//! `TCP_INFO`, many datagrams at a time, and processor time of one thread.
//!
//! Each function here is a thin, complete wrapper; nothing outside this file needs `unsafe`.
#![allow(unsafe_code)] // ioctl, getsockopt, sendmmsg, recvmmsg, getrusage and sched_setscheduler

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// Creates a TAP device of this name in the calling thread's network namespace and returns the
/// non-blocking file that carries its Ethernet frames, one per read or write.
///
/// No offload is asked for, so the kernel hands over single frames with finished checksums. The
/// device vanishes when the file is closed.
pub fn open_tap(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: an all-zero ifreq is a valid value of this plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "interface name is too long",
        ));
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives for the whole call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// Plugs (`true`) or pulls (`false`) the cable of a TAP device, as its kernel side sees it.
pub fn set_tap_carrier(tap: &File, plugged: bool) -> io::Result<()> {
    let value: libc::c_int = plugged.into();
    // SAFETY: TUNSETCARRIER reads one int, which lives for the whole call.
    let done = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETCARRIER as _, &value) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Gives the calling thread the lowest real-time priority, above all ordinary threads.
pub fn become_realtime() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: pid 0 is the calling thread; param lives for the whole call.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Processor time that the calling thread has used so far, user and system together.
pub fn thread_cpu_time() -> Duration {
    // SAFETY: an all-zero rusage is a valid value of this plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: getrusage fills one rusage, which lives for the whole call.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    let part = |time: libc::timeval| {
        Duration::new(
            time.tv_sec.max(0) as u64,
            (time.tv_usec.max(0) * 1000) as u32,
        )
    };
    part(usage.ru_utime) + part(usage.ru_stime)
}

/// Segments that a TCP sender has sent again so far.
pub fn tcp_retransmits(socket: &impl AsFd) -> io::Result<u64> {
    // SAFETY: an all-zero tcp_info is a valid value of this plain C struct.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: getsockopt writes at most `length` bytes into `info`, which is that large.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(u64::from(info.tcpi_total_retrans))
    }
}

/// Sends `datagram` so many times over a connected socket, and returns how often it went out.
pub fn send_many(socket: &impl AsFd, datagram: &[u8], count: usize) -> io::Result<usize> {
    let mut piece = libc::iovec {
        iov_base: datagram.as_ptr().cast_mut().cast(),
        iov_len: datagram.len(),
    };
    // SAFETY: an all-zero mmsghdr is a valid value of this plain C struct.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = &raw mut piece;
    message.msg_hdr.msg_iovlen = 1;
    let mut messages = vec![message; count];
    // SAFETY: sendmmsg reads `count` messages, all of which point at one piece that points at the
    // datagram; all of them outlive the call, and nothing is written but the messages' lengths.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_fd().as_raw_fd(),
            messages.as_mut_ptr(),
            count as libc::c_uint,
            0,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Waits for a datagram, takes up to `count` of them and forgets them; returns how many.
pub fn receive_many(socket: &impl AsFd, count: usize) -> io::Result<usize> {
    // SAFETY: an all-zero mmsghdr is a valid value of this plain C struct: it has room for
    // nothing, so datagrams are cut to nothing and still counted.
    let message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    let mut messages = vec![message; count];
    // SAFETY: recvmmsg writes the lengths of at most `count` messages, which live for the call.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_fd().as_raw_fd(),
            messages.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_WAITFORONE,
            std::ptr::null_mut(),
        )
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// The number of clock ticks per second in `/proc/*/stat`.
pub fn clock_ticks_per_second() -> f64 {
    // SAFETY: sysconf has no memory arguments.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}
