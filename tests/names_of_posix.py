"""What the standard library has only on some systems: names that are missing on Windows in Python 3.11.

Source: the notes on availability in the library's manual, and what typeshed has behind `sys.platform != "win32"`.
"""

import re

MODULES = {
    *("crypt", "curses", "fcntl", "grp", "nis", "ossaudiodev", "posix", "pty", "pwd", "readline", "resource", "spwd"),
    *("syslog", "termios", "tty"),
}
NAMES = {
    module: re.compile("|".join(words.split()))
    for module, words in {
        "os": r"""
            (CLD|CLONE|EFD|EX|F|GRND|MFD|PIDFD|POSIX|PRIO|RTLD|RWF|SCHED|SPLICE|ST|TFD|XATTR)_(?!OK$)\w+
            O_(?!APPEND$|BINARY$|CREAT$|EXCL$|NOINHERIT$|RANDOM$|RD)(?!SEQ|SHORT|TEMP|TEXT$|TRUNC$|WRONLY$)\w+
            P_(ALL|PGID|PID|PIDFD) SEEK_(DATA|HOLE) W[A-Z]+ NGROUPS_MAX
            chflags chown chroot confstr(_names)? copy_file_range ctermid environb eventfd(_read|_write)? fchdir fchmod
            fchown fdatasync fork(pty)? fpathconf fstatvfs fwalk get(egid|envb|euid|gid|grouplist|groups|loadavg)
            get(pgid|pgrp|priority|random|resgid|resuid|sid|uid|xattr|_blocking) grantpt initgroups killpg lchflags
            lchmod lchown listxattr lockf login_tty major makedev memfd_create minor mkfifo mknod nice openpty
            pathconf(_names)? pidfd_open pipe2 posix_\w+ preadv? ptsname pwritev? readv register_at_fork removexattr
            sched_\w+ sendfile set(egid|euid|gid|groups|ns|pgid|pgrp|priority|regid|resgid|resuid|reuid|sid|uid)
            set(xattr|_blocking) spawn[lv]pe? splice statvfs struct_rusage sync sysconf(_names)? tc[gs]etpgrp
            timerfd_\w+ ttyname uname unlockpt unshare wait[34]? waitid(_result)? writev
        """,
        "signal": r"""
            SIG(?!(ABRT|BREAK|FPE|ILL|INT|SEGV|TERM)$|_DFL$|_IGN$)[A-Z]\w+ SIG_(BLOCK|SETMASK|UNBLOCK) ITIMER_\w+
            ItimerError Sigmasks alarm [gs]etitimer pause pidfd_send_signal pthread_\w+ set_wakeup_fd siginterrupt
            sigpending sigtimedwait sigwait(info)? struct_siginfo
        """,
        "socket": r"""
            (ALG|CAN|CMSG|ETH|HCI|IOCTL|IPX|J1939|LOCAL|NETLINK|PACKET|PF|RDS|SCM|TIPC|UDPLITE|VMADDR|VM)_\w+
            BTPROTO_(HCI|L2CAP|SCO) NI_IDN AI_(DEFAULT|MASK|V4MAPPED_CFG) EAI_(BADHINTS|MAX|OVERFLOW|PROTOCOL|SYSTEM)
            EAI_ADDRFAMILY IPPROTO_(EON|GRE|HELLO|IPCOMP|IPIP|MPTCP|RSVP|TP|UDPLITE|XTP) SYSPROTO_CONTROL
            IPV6_(DSTOPTS|NEXTHOP|PATHMTU|USE_MIN_MTU|RTHDR_TYPE_0) IPV6_(RECV(?!TCLASS|RTHDR)|RTHDRDST)\w+
            AF_(?!(APPLETALK|BLUETOOTH|DECnet|INET|INET6|IPX|IRDA|LINK|SNA|UNSPEC)$)\w+
            MSG_(CMSG_CLOEXEC|CONFIRM|DONTWAIT|EOF|EOR|FASTOPEN|MORE|NOSIGNAL) SOCK_(CLOEXEC|NONBLOCK)
            SO_(BINDTO\w+|DOMAIN|INCOMING_CPU|J1939\w+|MARK|PASS\w+|PEER\w+|PRIORITY|PROTOCOL|REUSEPORT|VM_\w+)
            SOL_(?!(IP|SOCKET|TCP|UDP)$)\w+ IP_(TRANSPARENT|BIND_ADDRESS_NO_PORT|MAX_MEMBERSHIPS)
            IP_(DEFAULT_MULTICAST_\w+|RECVOPTS|RECVRETOPTS|RETOPTS)
            TCP_(CC_INFO|CONGESTION|CONNECTION_INFO|CORK|DEFER_ACCEPT|FASTOPEN_\w+|INFO|INQ|KEEPALIVE|LINGER2|MD5\w+)
            TCP_(NOTSENT_LOWAT|QUEUE_SEQ|QUICKACK|REPAIR\w*|SAVE\w+|SYNCNT|THIN\w+|TIMESTAMP|TX_DELAY|ULP|USER_TIMEOUT)
            TCP_(WINDOW_CLAMP|ZEROCOPY_RECEIVE) (recv|send)_fds sethostname
        """,
        "select": r"EPOLL\w* KQ_\w+ PIPE_BUF POLL\w+ epoll kevent kqueue poll",
        "selectors": r"(Epoll|Kqueue|Poll)Selector",
        "socketserver": r"Forking\w+ \w*Unix(Datagram|Stream)Server",
        "mmap": r"MADV_\w+ MAP_\w+ PROT_\w+",
        "time": r"CLOCK_\w+ clock_\w+ pthread_getcpuclockid tzset",
    }.items()
}
METHODS = {"madvise", "recvmsg", "recvmsg_into", "sendmsg", "sendmsg_afalg"}
