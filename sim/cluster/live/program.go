package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/cluster/proxy"
)

// Program is how a process of the cluster is run outside of this one.
type Program struct {
	// Command makes the command. Its environment is completed by the way to the registry: HTTPS_PROXY and SSL_CERT_FILE.
	Command func(Surroundings) (*exec.Cmd, error)
	// Lease is what it holds while it leads. When it was killed the lease is deleted, so that a successor need not wait.
	Lease client.ObjectKey
	// Grace is how long it may take to end by SIGTERM, before it is killed; default 10 s.
	Grace time.Duration
}

// Surroundings are what a program is given.
type Surroundings struct {
	// Context ends with the run.
	Context context.Context
	// Kubeconfig is a file with its own way to the API server.
	Kubeconfig string
	// Scratch is a directory of its own. It is removed after the run.
	Scratch string
	// Trust is a file with the certificate authority of the registry.
	Trust string
}

// lastWords is how much of a program's output is told when it exited by itself.
const lastWords = 8 << 10

// execute runs a program, in a process group of its own.
func (p *process) execute(caller *proxy.Caller) (*incarnation, error) {
	e := p.engine
	p.serial++
	scratch := filepath.Join(e.Scratch, fmt.Sprintf("%s-%d", p.name, p.serial))
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return nil, err
	}
	s := Surroundings{Context: e.ctx, Kubeconfig: filepath.Join(scratch, "kubeconfig"), Scratch: scratch, Trust: filepath.Join(scratch, "registry.crt")}
	if e.gate == nil {
		return nil, errors.New("there is no registry")
	}
	if err := errors.Join(os.WriteFile(s.Kubeconfig, caller.Kubeconfig(), 0o600), os.WriteFile(s.Trust, e.gate.authority, 0o600)); err != nil {
		return nil, err
	}
	cmd, err := p.program.Command(s)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, "HTTPS_PROXY="+e.gate.proxyURL(p.name).String(), "NO_PROXY=127.0.0.1,localhost", "SSL_CERT_FILE="+s.Trust)
	log, err := os.Create(filepath.Join(e.Logs, fmt.Sprintf("%s-%d.log", p.name, p.serial)))
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr, cmd.Cancel = log, log, nil
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // nothing outlives this program, however it ends
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	i := &incarnation{caller: caller, ended: make(chan struct{})}
	i.cancel = func() { _ = cmd.Process.Signal(syscall.SIGTERM) } // one that has ended can't be told
	i.kill = func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	go func() {
		defer close(i.ended)
		err := cmd.Wait()
		words := tail(log.Name())
		if closeErr := log.Close(); err == nil {
			err = closeErr
		}
		if e.ctx.Err() == nil && p.unexpected(i) {
			i.err = fmt.Errorf("%w\n%s", errors.Join(errors.New("it ended by itself"), err), words)
			p.exited(i)
		}
	}()
	return i, nil
}

// tail is the end of a log.
func tail(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > lastWords {
		if _, err := f.Seek(-lastWords, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	// A panic is told from its beginning, as far as there is room.
	for _, mark := range []string{"\npanic: ", "\nfatal error: "} {
		if _, after, found := bytes.Cut(text, []byte(mark)); found {
			return strings.TrimSpace(mark) + " " + string(after)
		}
	}
	return string(text)
}

// release deletes the lease that a killed program held.
func (p *process) release() {
	var lease client.ObjectKey
	switch {
	case p.deployment != nil:
		lease = client.ObjectKey{Namespace: layering.Namespace, Name: p.name}
	case p.program != nil && p.program.Lease.Name != "":
		lease = p.program.Lease
	default:
		return
	}
	leases := p.engine.Server.dynamic.Resource(coordinationv1.SchemeGroupVersion.WithResource("leases")).Namespace(lease.Namespace)
	err := leases.Delete(p.engine.ctx, lease.Name, metav1.DeleteOptions{})
	if client.IgnoreNotFound(err) != nil && p.engine.ctx.Err() == nil {
		p.engine.cancel(fmt.Errorf("delete the lease of %s: %w", p.name, err))
	}
}
