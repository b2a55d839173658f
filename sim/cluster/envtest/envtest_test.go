//go:build live || likeness

package envtest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/sim/cluster/envtest"
)

// The programs are found where the build puts them.
func TestBinaries(t *testing.T) {
	build, err := os.ReadFile("../../../hack/controlplane/go.mod")
	must(t, err)
	if !regexp.MustCompile(`\sk8s\.io/kubernetes ` + regexp.QuoteMeta(envtest.Version) + `\s`).Match(build) {
		t.Errorf("hack/controlplane/go.mod doesn't require k8s.io/kubernetes %s", envtest.Version)
	}
	dir := t.TempDir()
	t.Setenv("LAYERSIM_CONTROLPLANE", dir)
	if _, err := envtest.Binaries(); !errors.Is(err, envtest.ErrNotBuilt) || !strings.Contains(err.Error(), "kube-apiserver") {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := envtest.Start(t.Context(), envtest.Options{}); !errors.Is(err, envtest.ErrNotBuilt) {
		t.Errorf("start from an empty folder: %v", err)
	}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	if _, err := envtest.Binaries(); err == nil || !strings.Contains(err.Error(), "is not a program") {
		t.Errorf("files that can't be executed: %v", err)
	}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		must(t, os.Chmod(filepath.Join(dir, name), 0o700))
	}
	if got, err := envtest.Binaries(); err != nil || got != dir {
		t.Errorf("got %q, %v, want %q", got, err, dir)
	}
}

// A control plane with controllers runs a Job and stops without a trace.
func TestStart(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	began := time.Now()
	cp, err := envtest.Start(t.Context(), envtest.Options{Controllers: envtest.Controllers, Scheduler: true})
	must(t, err)
	t.Logf("started in %s", time.Since(began).Round(time.Millisecond))
	c, err := client.NewWithWatch(cp.Config, client.Options{})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w, err := c.Watch(ctx, &corev1.PodList{}, client.InNamespace("default"))
	must(t, err)
	must(t, c.Create(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "j"}, Spec: batchv1.JobSpec{
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}},
		}},
	}}))
	select {
	case e := <-w.ResultChan():
		if p, ok := e.Object.(*corev1.Pod); !ok || p.Labels["job-name"] != "j" {
			t.Errorf("got %v, want the Job's pod", e)
		}
	case <-ctx.Done():
		t.Error("the Job got no pod")
	}
	w.Stop()
	began = time.Now()
	must(t, cp.Stop())
	must(t, cp.Stop())
	t.Logf("stopped in %s", time.Since(began).Round(time.Millisecond))
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}

	canceled, cancel2 := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel2()
	if cp, err := envtest.Start(canceled, envtest.Options{}); err == nil {
		t.Error("start with an ended context succeeded", cp.Stop())
	} else if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
