package envtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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
	endsFile    = "ends"    // a pipe that gets a line for each program that has ended: its name, and the shell's exit status
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
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
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
	exit := (*exec.ExitError)(nil)
	switch {
	case errors.As(err, &exit):
		if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() { // the wrapper had to be killed
			err = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		} else {
			err = nil
		}
	case errors.Is(err, context.Canceled):
		err = nil
	}
	if errors.Is(err, syscall.ESRCH) { // nothing is left
		err = nil
	}
	return err
}

// output returns the file that a program's output goes to.
func (c *ControlPlane) output(name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(c.logs, name+logSuffix), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.outputs = append(c.outputs, f)
	}
	return f, err
}

const logSuffix = ".log"

// lastWords returns what programs said last, for an error message; without names, of all programs. Who gave up with a stack
// of calls is quoted from the reason on.
func (c *ControlPlane) lastWords(names ...string) string {
	var b strings.Builder
	for _, f := range c.outputs {
		name := strings.TrimSuffix(filepath.Base(f.Name()), logSuffix)
		text, err := os.ReadFile(f.Name())
		if err != nil || len(bytes.TrimSpace(text)) == 0 || len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		begin := slices.IndexFunc(lines, gaveUp.MatchString)
		if begin < 0 {
			begin = max(0, len(lines)-words)
		}
		for _, line := range lines[begin:min(begin+words, len(lines))] {
			if len(line) > widest {
				line = strings.ToValidUTF8(line[:widest], "") + "…"
			}
			fmt.Fprintf(&b, "\n\t%s: %s", name, line)
		}
	}
	return b.String()
}

const (
	// words is how many lines a program's last words are.
	words = 3
	// widest is the width in bytes to which they are cut.
	widest = 400
)

// gaveUp begins the last words of a Go program, of klog and of etcd's logs.
var gaveUp = regexp.MustCompile(`^(panic: |fatal error: |F\d{4} |\{"level":"(fatal|panic)")`)

// says reports whether a program has said something.
func (c *ControlPlane) says(text string) bool {
	return slices.ContainsFunc(c.outputs, func(f *os.File) bool {
		said, err := os.ReadFile(f.Name())
		return err == nil && bytes.Contains(said, []byte(text))
	})
}

// wrap returns a script that runs a program, leaves its process ID where the watchdog finds it, and tells when and how it
// ended. The program may have ended before it could be told to: then nobody is to be told, either.
func (c *ControlPlane) wrap(programs, name string) (string, error) {
	path := filepath.Join(c.dir, "bin", name)
	file := func(name string) string { return quoted(filepath.Join(c.dir, name)) }
	text := strings.NewReplacer("PROGRAM", quoted(filepath.Join(programs, name)), "NAME", name, "PID", file(name+pidSuffix),
		"STOPPED", file(stoppedFile), "ENDS", file(endsFile)).Replace(wrapper)
	// A process that is forked meanwhile would hold the file open for writing, and it could not be executed.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return path, os.WriteFile(path, []byte(text), 0o700)
}

// The signal to end goes to the process group, so the shell only has to survive it.
// envtest asks for the flags first.
const wrapper = `#!/bin/sh
[ "$*" != --help ] || exec PROGRAM --help
trap : TERM
PROGRAM "$@" &
program=$!
exec 2>/dev/null
echo "$program" >PID && [ ! -e STOPPED ] || kill -KILL "$program"
while wait "$program"; status=$?; kill -0 "$program"; do :; done
[ ! -p ENDS ] || echo NAME "$status" 1<>ENDS
exit "$status"
`

func quoted(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }

// listen reads what the wrappers tell, until it is told to end.
func (c *ControlPlane) listen() error {
	path := filepath.Join(c.dir, endsFile)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return fmt.Errorf("make pipe %s: %w", path, err)
	}
	// Open for writing as well, so that there is always a writer.
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	c.ends, c.heard = pipe, make(chan struct{})
	go func() {
		defer close(c.heard)
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			name, status, _ := strings.Cut(lines.Text(), " ")
			if name == stoppedFile {
				return
			}
			c.ended(name, status)
		}
	}()
	return nil
}

// deafen ends the listening.
func (c *ControlPlane) deafen() error {
	if c.ends == nil {
		return nil
	}
	_, err := fmt.Fprintln(c.ends, stoppedFile)
	if err == nil {
		<-c.heard
	}
	err = errors.Join(err, c.ends.Close())
	c.ends = nil
	return err
}

// ended notes that a program has ended. Without any one of them a control plane is none, so the others are killed: who
// waits for an answer shall not wait for long.
func (c *ControlPlane) ended(name, status string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping || c.death != nil {
		return
	}
	how := "exit status " + status
	if n, err := strconv.Atoi(status); err == nil && n > 128 {
		how = fmt.Sprintf("signal %d (%s)", n-128, syscall.Signal(n-128))
	}
	words := c.lastWords(name)
	if c.keepsLogs {
		words = fmt.Sprintf("; its log is %s%s", filepath.Join(c.logs, name+logSuffix), words)
	}
	if c.full() {
		words = fmt.Sprintf("; no space left on device: the disk of %s is full, TMPDIR chooses another%s", filepath.Dir(c.dir), words)
	}
	c.death = death(fmt.Sprintf("%s ended by %s%s", name, how, words))
	c.kill()
	close(c.died)
}

// room is what must fit on the disk. etcd ends by less, and its log is on the same disk, which then doesn't say why.
const room = 1 << 20

// full reports whether the disk of the run has no room, by writing to it: quotas and reserves count, too.
func (c *ControlPlane) full() bool {
	f, err := os.CreateTemp(c.dir, "room-")
	if err == nil {
		_, err = f.Write(make([]byte, room))
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

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
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && c.owns(pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// owns reports whether a process is one of the control plane's, for which its number may have been given anew: the
// arguments of each one name a file below the directory. Where they can't be read it is taken for granted.
func (c *ControlPlane) owns(pid int) bool {
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err != nil || bytes.Contains(arguments, []byte(c.dir))
}

// watchdog is a shell that cleans up when this program ends without Stop.
type watchdog struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// On a full disk no file may be made, and ":" would end the shell then.
const watchdogScript = `while read -r _; do :; done
true >"$0/` + stoppedFile + `"
for f in "$0"/*` + pidSuffix + `; do kill -KILL "$(cat "$f")"; done
for again in 1 2 3; do rm -rf "$0" && break; sleep 1; done`

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

// locked makes the lock by which others see that a directory is in use. It comes by its name when it is locked already.
func locked(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, lockFile+"-")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), os.Rename(f.Name(), filepath.Join(dir, lockFile))); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// abandoned reports whether nobody owns a directory any more. Then it is locked.
func abandoned(dir string) (*os.File, bool, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, false, nil // another user's
	case errors.Is(err, fs.ErrNotExist):
		// Just made or just removed; else its owner was killed before it had a lock.
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, false, nil
		}
		return nil, err == nil && time.Since(info.ModTime()) > time.Minute, err
	case err != nil:
		return nil, false, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = nil
		}
		return nil, false, errors.Join(err, f.Close())
	}
	return f, true, nil
}

// sweep ends and removes what runs left whose owner and whose watchdog were killed.
func sweep() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), directory+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		lock, gone, err := abandoned(dir)
		if err != nil {
			return err
		}
		if !gone {
			continue
		}
		left := ControlPlane{dir: dir}
		left.kill()
		errs := []error{os.RemoveAll(dir)}
		if lock != nil {
			errs = append(errs, lock.Close())
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}
