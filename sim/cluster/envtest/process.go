package envtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// directory begins the name of each run's directory.
const directory = "layersim-controlplane-"

// Files in the directory of a run.
const (
	lockFile    = "lock"    // locked for as long as the owner lives
	stoppedFile = "stopped" // no process may start any more
	pidSuffix   = ".pid"    // the process ID of a program
)

// process is a program that is run beside what controller-runtime's envtest runs.
type process struct {
	name   string
	cmd    *exec.Cmd
	cancel context.CancelFunc
}

// run starts a program beside the API server.
func (c *ControlPlane) run(programs, name string, arguments ...string) error {
	out, err := c.output(name)
	if err != nil {
		return err
	}
	path, err := c.wrap(programs, name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, arguments...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, out, stopLimit
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this program, which then calls Stop
	if err := cmd.Start(); err != nil {
		cancel()
		return fmt.Errorf("start %s: %w", name, err)
	}
	c.processes = append(c.processes, &process{name, cmd, cancel})
	return nil
}

// end ends the process. How it ends is of no interest.
func (p *process) end() error {
	p.cancel()
	err := p.cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// output returns the file that a program's output goes to.
func (c *ControlPlane) output(name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(c.logs, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err == nil {
		c.outputs = append(c.outputs, f)
	}
	return f, err
}

// lastWords returns the end of what the programs said, for an error message.
func (c *ControlPlane) lastWords() string {
	var b strings.Builder
	for _, f := range c.outputs {
		text, err := os.ReadFile(f.Name())
		if err != nil || len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		for _, line := range lines[max(0, len(lines)-3):] {
			fmt.Fprintf(&b, "\n\t%s: %s", strings.TrimSuffix(filepath.Base(f.Name()), ".log"), line)
		}
	}
	return b.String()
}

// wrap returns a script that leaves its process ID where the watchdog finds it and then becomes a program.
func (c *ControlPlane) wrap(programs, name string) (string, error) {
	path := filepath.Join(c.dir, "bin", name)
	text := fmt.Sprintf("#!/bin/sh\necho $$ >%s\n[ ! -e %s ] || exit 1\nexec %s \"$@\"\n",
		quoted(filepath.Join(c.dir, name+pidSuffix)), quoted(filepath.Join(c.dir, stoppedFile)), quoted(filepath.Join(programs, name)))
	// A process that is forked meanwhile would hold the file open for writing, and it could not be executed.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return path, os.WriteFile(path, []byte(text), 0o700)
}

func quoted(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }

// kill kills all processes, and lets none start any more.
func (c *ControlPlane) kill() {
	// Errors are of processes that have ended, or show when the directory is removed.
	_ = os.WriteFile(filepath.Join(c.dir, stoppedFile), nil, 0o600)
	paths, _ := filepath.Glob(filepath.Join(c.dir, "*"+pidSuffix))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// watchdog is a shell that cleans up when this program ends without Stop.
type watchdog struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

const watchdogScript = `while read -r _; do :; done
: >"$0/` + stoppedFile + `"
for f in "$0"/*` + pidSuffix + `; do kill -KILL "$(cat "$f")"; done
rm -rf "$0"`

func (c *ControlPlane) watch() error {
	cmd := exec.Command("sh", "-c", watchdogScript, c.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start watchdog: %w", err)
	}
	c.watchdog = &watchdog{cmd, stdin}
	return nil
}

// dismiss ends the watchdog without the cleaning up.
func (w *watchdog) dismiss() error {
	err := w.cmd.Process.Kill()
	if exit := (*exec.ExitError)(nil); !errors.As(w.cmd.Wait(), &exit) {
		err = errors.Join(err, errors.New("the watchdog had ended"))
	}
	return err
}

// locked takes the lock by which others see that a directory is in use.
func locked(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweep removes the directories of runs whose owner and whose watchdog were killed.
func sweep() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), directory+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		// A directory that was just made has no lock yet.
		if errors.Is(err, fs.ErrNotExist) || err == nil && time.Since(info.ModTime()) < time.Minute {
			continue
		}
		lock, err := locked(dir)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // in use, just removed, or another user's
		}
		if err != nil {
			return err
		}
		if err := errors.Join(os.RemoveAll(dir), lock.Close()); err != nil {
			return err
		}
	}
	return nil
}
