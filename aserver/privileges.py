"""From root to another user: groups, ids and capabilities.

Used by the zygote before it loads the app, and by `aserver check`. Every function either does all of its work or
raises ConfigError; after that the process must not go on.
"""

import ctypes
import grp
import os
import pwd
import sys

from aserver.errors import ConfigError

_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h


def drop_privileges(user: str | None, group: str | None) -> None:
    """Become `user` (name or uid) and `group`, for good. Raises ConfigError, and then the process must not go on.

    Without `group` it is the user's own; the supplementary groups are the user's, or just `group`. The order is groups,
    gid, uid, capabilities, because each step takes away the right to do the step before. Setuid programs that the app
    starts keep their rights: PR_SET_NO_NEW_PRIVS would take `sendmail` from the app, so it is left to the service
    manager.
    """
    if user is None and group is None:
        return
    uid, gid, groups = identity(user, group)
    if 0 != uid == os.getuid() == os.geteuid() and gid == os.getgid() == os.getegid():
        return  # started as that user already, without the right to change groups, and without the need
    try:
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)
    except OSError as error:
        raise ConfigError(f"cannot become user {user}, group {group}: {error.strerror}; start as root") from None
    if user is not None and uid != 0:
        drop_capabilities()


def identity(user: str | None, group: str | None) -> tuple[int, int, list[int]]:
    """The uid, gid and supplementary groups that the settings mean. Raises ConfigError."""
    gid = os.getgid()
    if group is not None:
        try:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise ConfigError(f"group {group} does not exist on this system") from None
    if user is None:
        return os.getuid(), gid, [gid]
    try:
        account = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if user.isdecimal() and group is not None:  # as in containers: a number without a name
            return int(user), gid, [gid]
        why = "; a uid without an account needs `group` as well" if user.isdecimal() else ""
        raise ConfigError(f"user {user} does not exist on this system{why}") from None
    gid = account.pw_gid if group is None else gid
    return account.pw_uid, gid, os.getgrouplist(account.pw_name, gid)


def drop_capabilities() -> None:
    """Give up every capability (capabilities(7)). Raises ConfigError.

    The kernel does so by itself when root becomes another user. It does not for a process that was started as a plain
    user with CAP_SETUID, and it keeps the inheritable capabilities.
    """
    if sys.platform != "linux":
        return
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)  # 0: this thread, which is the only thread
    nothing = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, each in two words
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing) != 0:
        raise ConfigError(f"capabilities cannot be dropped: {os.strerror(ctypes.get_errno())}")
