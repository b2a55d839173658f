//go:build live

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The disk fills up in the middle of a run, to the last byte.
func TestDiskFills(t *testing.T) {
	t.Parallel()
	s := newSession(t, t.TempDir())
	s.cmd.Args[len(s.cmd.Args)-1] = filepath.Join("..", "..", "scenarios", "happy-path.yaml")
	disk := s.on("size=160m") // etcd allocates 128 MB in advance
	s.start()
	s.until(`: step 1/\d+`)
	left := disk()
	fill(t, left.Name())
	s.ends(3, time.Minute)
	s.says("the control plane died: etcd ended by exit status 1; no space left on device: the disk of " + s.tmp + " is full, TMPDIR chooses another")
	s.says("0 passed, 0 failed, 0 skipped, 1 could not run")
	s.leavesNothing()
	isEmpty(t, left)
}

// A program that ends for lack of room has often no room to say why.
func TestDiskFillsInSilence(t *testing.T) {
	t.Parallel()
	s := newSession(t, t.TempDir())
	s.programs("cat /dev/zero >\"$TMPDIR/filler\" 2>/dev/null\nexit 1\n")
	s.on("size=1m")
	s.start()
	s.ends(3, time.Minute)
	s.says("start control plane: the control plane died: etcd ended by exit status 1; no space left on device: the disk of " + s.tmp + " is full")
	s.leavesNothing()
}

// The watchdog does its work where no file can be made any more.
func TestKilledOnFullDisk(t *testing.T) {
	t.Parallel()
	s := newSession(t, t.TempDir())
	s.programs("while :; do sleep 1; done\n")
	disk := s.on("size=1m,nr_inodes=100")
	s.start()
	s.until(starting)
	left := disk()
	s.started("etcd")
	fill(t, left.Name())
	s.kill(s.cmd.Process.Pid)
	_ = s.cmd.Wait() // it was killed
	for end := time.Now().Add(time.Minute); len(s.running()) > 0 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	s.leavesNothing()
	isEmpty(t, left)
}

// on lets the session run with a small disk of its own as its temporary directory. The directory that is returned is good
// after the end, too.
func (s *session) on(options string) (disk func() *os.File) {
	s.t.Helper()
	const script = `mount -t tmpfs -o "$0" layersim "$TMPDIR" && exec "$@"`
	attributes := &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	probe := exec.Command("sh", "-c", script, options, "true")
	probe.SysProcAttr, probe.Env = attributes, s.cmd.Env
	if out, err := probe.CombinedOutput(); err != nil {
		s.t.Skipf("no file system can be mounted here: %v %s", err, out)
	}
	s.cmd.Args = append([]string{"sh", "-c", script, options}, append([]string{s.cmd.Path}, s.cmd.Args[1:]...)...)
	s.cmd.Path, s.cmd.SysProcAttr = "/bin/sh", attributes
	return func() *os.File {
		s.t.Helper()
		f, err := os.Open(s.root())
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { _ = f.Close() })
		return f
	}
}

// root is the temporary directory as the program sees it.
func (s *session) root() string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", s.cmd.Process.Pid), s.tmp)
}

// programs makes a control plane of which only etcd is run, as a script.
func (s *session) programs(etcd string) {
	s.t.Helper()
	dir := s.t.TempDir()
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		text := "#!/bin/sh\n[ \"$*\" != --help ] || exit 0\n" + etcd
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	s.cmd.Env = append(s.cmd.Env, "LAYERSIM_CONTROLPLANE="+dir)
}

// fill leaves no room and no file to be made in a directory's file system.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err == nil {
		block := make([]byte, 1<<20)
		for size := len(block); size > 0 && err == nil; {
			if _, err = f.Write(block[:size]); errors.Is(err, syscall.ENOSPC) {
				size, err = size/2, nil
			}
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; err == nil && n < 1000; n++ {
		err = os.Mkdir(filepath.Join(dir, fmt.Sprintf("filler-%d", n)), 0o700)
	}
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// isEmpty fails the test where something is left beside what filled the disk.
func isEmpty(t *testing.T, dir *os.File) {
	t.Helper()
	entries, err := dir.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if len(entries) == 0 {
		t.Error("there is nothing, not even what filled the disk: this test tests nothing")
	}
	for _, name := range entries {
		if !strings.HasPrefix(name, "filler") {
			t.Errorf("left: %s", name)
		}
	}
}
