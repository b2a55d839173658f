package release

import (
	"os"
	"os/exec"
	"syscall"
)

// isolate gives a command mounts of its own. Go makes them private before the command runs. Without root it becomes root of
// a user namespace, which may mount; the files that it writes belong to the user all the same.
func isolate(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Unshareflags |= syscall.CLONE_NEWNS
		return nil
	}
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	return nil
}
