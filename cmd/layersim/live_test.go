//go:build live

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestLiveScripts runs the program with real clusters where there are none.
func TestLiveScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/live", RequireExplicitExec: true})
}

// endless never ends by itself.
const endless = `kind: Scenario
name: endless
shows: nothing
cluster: {nodes: {master: {count: 1, roles: [master]}, worker: {count: 1}}}
steps:
  - pause: {pause: worker, expect: {mcp worker: {where: object.spec.paused}}}
  - wait for ever: {wait: 100000h}
`

// What its log says when it has come that far.
const (
	starting = `^envtest: starting control plane 1$`
	waiting  = `^\[0/1\] endless: step 2/2, wait for ever$`
)

// A program of the control plane is killed.
func TestControlPlaneDies(t *testing.T) {
	t.Parallel()
	artifacts := t.TempDir()
	s := start(t, t.TempDir(), "--artifacts", artifacts)
	s.until(waiting)
	s.kill(s.pids("kube-controller-manager")...)
	s.ends(3, time.Minute)
	log := filepath.Join(artifacts, "endless", "logs", "kube-controller-manager.log")
	s.says("the control plane died: kube-controller-manager ended by signal 9 (killed); its log is " + log)
	if info, err := os.Stat(log); err != nil || info.Size() == 0 {
		t.Errorf("it isn't there: %v", err)
	}
	if entries, err := os.ReadDir(artifacts); err != nil || len(entries) != 1 {
		t.Errorf("artifacts %v, %v, want those of the scenario only", entries, err)
	}
	s.says("1 could not run")
	s.leavesNothing()
}

// Scenarios that run one after the other on one control plane: each has in its logs what was said meanwhile, by programs that go
// on from scenario to scenario.
func TestArtifacts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	arguments := []string{"run", "--cluster", "envtest", "--parallel", "1", "--artifacts", filepath.Join(dir, "artifacts")}
	for n, name := range []string{"first", "second"} {
		text := strings.Replace(endless, "endless", name, 1)
		text = text[:strings.Index(text, "  - wait for ever")]
		// kube-controller-manager speaks of nodes that are new to it, and nodes with a name that it knows need not be.
		text = strings.Replace(text, "worker: {count: 1}", fmt.Sprintf("worker: {count: %d}", n+1), 1)
		file := filepath.Join(dir, name+".yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		arguments = append(arguments, file)
	}
	if out, err := exec.Command("layersim", arguments...).CombinedOutput(); err != nil || bytes.Count(out, []byte("starting control plane")) != 1 {
		t.Fatalf("%v, want that it passes on one control plane:\n%s", err, out)
	}
	said := func(scenario, program string) string {
		// One that has said nothing has no log.
		text, err := os.ReadFile(filepath.Join(dir, "artifacts", scenario, "logs", program+".log"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		return string(text)
	}
	if begin := `"msg":"Running: "`; !strings.Contains(said("first", "etcd"), begin) || strings.Contains(said("second", "etcd"), begin) {
		t.Errorf("etcd began in the first scenario, and it says:\n%s\nthen:\n%s", said("first", "etcd"), said("second", "etcd"))
	}
	if first, second := said("first", "kube-controller-manager"), said("second", "kube-controller-manager"); second == "" ||
		strings.Contains(first, second) {
		t.Errorf("kube-controller-manager says in the second scenario:\n%s\nand said before:\n%s", second, first)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "artifacts")); err != nil || len(entries) != 2 {
		t.Errorf("artifacts %v, %v, want those of the scenarios only", entries, err)
	}
}

// An interrupt in the middle of a run, after one that was killed with its watchdog: it removes what that one left.
func TestInterruptAndSweep(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	killed := start(t, tmp)
	killed.until(waiting)
	watchdogs := killed.children("while read")
	if len(watchdogs) != 1 {
		t.Fatalf("watchdogs: %v", watchdogs)
	}
	orphans := killed.pids("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
	// Ctrl-C on a terminal is for a whole process group, which is layersim's and, here, this program's.
	for _, pid := range append(watchdogs, orphans...) {
		if group, err := syscall.Getpgid(pid); err != nil || group == syscall.Getpgrp() {
			t.Errorf("process %d gets what is typed on the terminal: %v", pid, err)
		}
	}
	killed.kill(watchdogs[0], killed.cmd.Process.Pid)
	_ = killed.cmd.Wait() // it was killed
	left, err := filepath.Glob(filepath.Join(tmp, "layersim-controlplane-*"))
	if err != nil || len(left) != 1 {
		t.Errorf("left %v, %v, want one directory with that name", left, err)
	}
	for _, pid := range orphans {
		if syscall.Kill(pid, 0) != nil {
			t.Errorf("process %d doesn't run any more: this test tests nothing", pid)
		}
	}

	next := start(t, tmp)
	next.until(waiting)
	if _, err := os.Stat(left[0]); err == nil {
		t.Errorf("%s is there again", left[0])
	}
	for _, pid := range orphans {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d still runs", pid)
		}
	}
	next.signal(syscall.SIGINT)
	next.until("^interrupted: ending what runs")
	next.ends(3, time.Minute)
	next.says("context canceled")
	next.leavesNothing()
}

func TestKilled(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	s.until(waiting)
	s.kill(s.cmd.Process.Pid)
	_ = s.cmd.Wait() // it was killed
	for end := time.Now().Add(time.Minute); len(s.running())+len(s.entries()) > 0 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	s.leavesNothing()
}

func TestInterruptedStart(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	s.until(starting)
	s.signal(syscall.SIGTERM)
	s.ends(3, time.Minute)
	s.says("start control plane: terminated signal received")
	s.leavesNothing()
}

// No room for the database: on a small file system where one can be mounted, else by a limit to the size of files.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	script := `mount -t tmpfs -o size=16m layersim "$TMPDIR" && exec "$@"`
	attributes := &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	probe := exec.Command("sh", "-c", script, "sh", "true")
	probe.SysProcAttr, probe.Env = attributes, append(os.Environ(), "TMPDIR="+t.TempDir())
	if out, err := probe.CombinedOutput(); err != nil {
		t.Logf("no file system can be mounted here, so the size of files is limited: %v %s", err, out)
		script, attributes = `ulimit -f 8192 && exec "$@"`, nil
	}
	s := newSession(t, t.TempDir())
	s.cmd.Args = append([]string{"sh", "-c", script, "sh"}, s.cmd.Args...)
	s.cmd.Path, s.cmd.SysProcAttr = "/bin/sh", attributes
	s.start()
	s.ends(3, time.Minute)
	s.says("start control plane: the control plane died: etcd ended by ")
	if !regexp.MustCompile("no space left on device|file too large|file size limit").MatchString(s.stdout.String()) {
		t.Errorf("it isn't said why:\n%s", &s.stdout)
	}
	s.leavesNothing()
}

// session is a run of the endless scenario in a process of its own.
type session struct {
	t      *testing.T
	tmp    string
	cmd    *exec.Cmd
	stdout bytes.Buffer
	stderr *bufio.Scanner
	log    []string
}

func newSession(t *testing.T, tmp string, arguments ...string) *session {
	t.Helper()
	file := filepath.Join(t.TempDir(), "endless.yaml")
	if err := os.WriteFile(file, []byte(endless), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, tmp: tmp, cmd: exec.Command("layersim", append([]string{"run", "--cluster", "envtest", file}, arguments...)...)}
	s.cmd.Env, s.cmd.Stdout = append(os.Environ(), "TMPDIR="+tmp), &s.stdout
	return s
}

func start(t *testing.T, tmp string, arguments ...string) *session {
	t.Helper()
	s := newSession(t, tmp, arguments...)
	s.start()
	return s
}

func (s *session) start() {
	s.t.Helper()
	stderr, err := s.cmd.StderrPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.stderr = bufio.NewScanner(stderr)
	s.t.Cleanup(func() { _ = s.cmd.Process.Kill() }) // one that has ended needs no more
}

// until waits for a line of standard error.
func (s *session) until(pattern string) {
	s.t.Helper()
	late := time.AfterFunc(5*time.Minute, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
	for re := regexp.MustCompile(pattern); s.stderr.Scan(); {
		s.log = append(s.log, s.stderr.Text())
		if re.MatchString(s.stderr.Text()) {
			return
		}
	}
	s.t.Fatalf("it never said %s:\n%s\n%s", pattern, strings.Join(s.log, "\n"), &s.stdout)
}

// ends waits for the end.
func (s *session) ends(status int, within time.Duration) {
	s.t.Helper()
	began := time.Now()
	late := time.AfterFunc(within, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
	for s.stderr.Scan() {
		s.log = append(s.log, s.stderr.Text())
	}
	err := s.cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != status {
		s.t.Errorf("ended after %s with %v, want exit status %d:\n%s\n%s", time.Since(began), err, status, strings.Join(s.log, "\n"), &s.stdout)
	}
}

// says looks for a text in all that was said.
func (s *session) says(text string) {
	s.t.Helper()
	if all := strings.Join(s.log, "\n") + "\n" + s.stdout.String(); !strings.Contains(all, text) {
		s.t.Errorf("%q is not in:\n%s", text, all)
	}
}

func (s *session) signal(signal os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) kill(pids ...int) {
	s.t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			s.t.Fatalf("kill %d: %v", pid, err)
		}
	}
}

// pids are the process IDs of programs of the control plane.
func (s *session) pids(programs ...string) (pids []int) {
	s.t.Helper()
	for _, program := range programs {
		files, err := filepath.Glob(filepath.Join(s.tmp, "layersim-controlplane-*", program+".pid"))
		if err != nil || len(files) != 1 {
			s.t.Fatalf("%s: %v, %v", program, files, err)
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			s.t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			s.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// each visits the processes of this machine.
func (s *session) each(visit func(pid, parent int, arguments string)) {
	s.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, file := range files {
		pid, _ := strconv.Atoi(filepath.Base(file)) // it consists of digits
		arguments, err := os.ReadFile(filepath.Join(file, "cmdline"))
		stat, statErr := os.ReadFile(filepath.Join(file, "stat"))
		if err != nil || statErr != nil {
			continue // it has ended
		}
		// pid (name) state parent
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			s.t.Fatal(err)
		}
		visit(pid, parent, strings.ReplaceAll(string(arguments), "\x00", " "))
	}
}

// children are those whose arguments have a text in them.
func (s *session) children(text string) (pids []int) {
	s.each(func(pid, parent int, arguments string) {
		if parent == s.cmd.Process.Pid && strings.Contains(arguments, text) {
			pids = append(pids, pid)
		}
	})
	return pids
}

// running are the processes that have to do with the control plane.
func (s *session) running() (found []string) {
	s.each(func(pid, _ int, arguments string) {
		if strings.Contains(arguments, s.tmp) {
			found = append(found, strconv.Itoa(pid)+" "+arguments)
		}
	})
	return found
}

func (s *session) entries() []os.DirEntry {
	s.t.Helper()
	entries, err := os.ReadDir(s.tmp)
	if err != nil {
		s.t.Fatal(err)
	}
	return entries
}

// leavesNothing fails the test where a process still runs, which is killed then, or a file is left.
func (s *session) leavesNothing() {
	s.t.Helper()
	if found := s.running(); len(found) > 0 {
		s.t.Errorf("still running:\n%s", strings.Join(found, "\n"))
	}
	s.each(func(pid, _ int, arguments string) {
		if s.tmp != "" && strings.Contains(arguments, s.tmp) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended with another one
		}
	})
	if entries := s.entries(); len(entries) > 0 {
		s.t.Errorf("left: %v", entries)
	}
}
