package main

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/layersim/layersim/controllers/manager"
)

// TestComponents: the process runs render, node and drain, and each of them attaches to a controller-runtime manager.
func TestComponents(t *testing.T) {
	components, err := program().Components()
	if err != nil {
		t.Fatal(err)
	}
	scheme, err := manager.NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	mgr, err := ctrl.New(&rest.Config{Host: "http://127.0.0.1:0"}, ctrl.Options{Scheme: scheme,
		Metrics: metricsserver.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
			return meta.NewDefaultRESTMapper(nil), nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range components {
		names = append(names, c.Name)
		if err := manager.Add(mgr, c); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"render-controller", "node-controller", "drain-controller"}; !slices.Equal(names, want) {
		t.Errorf("components %q, want %q", names, want)
	}
}

// TestFlags: upstream's flags are understood.
func TestFlags(t *testing.T) {
	var out bytes.Buffer
	command := program().Command()
	command.SetOut(&out)
	command.SetArgs([]string{"start", "--kubeconfig=f", "--templates=/t", "--payload-version=4.18.0", "--streams-cache=",
		"--resourcelock-namespace=ns", "--metrics-listen-address=127.0.0.1:0", "-v=2", "--help"})
	if err := command.Execute(); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--templates", "--payload-version", "--streams-cache"} {
		if !strings.Contains(out.String(), flag) {
			t.Errorf("help doesn't mention %s", flag)
		}
	}
}

// TestGauges: a drain that ended leaves no sample.
func TestGauges(t *testing.T) {
	registry := prometheus.NewRegistry()
	g, err := newGauges(registry)
	if err != nil {
		t.Fatal(err)
	}
	samples := func() int {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, f := range families {
			n += len(f.Metric)
		}
		return n
	}
	g.DrainFailing("n0", true)
	if samples() != 1 {
		t.Errorf("%d samples, want 1", samples())
	}
	g.DrainFailing("n0", false)
	if samples() != 0 {
		t.Errorf("%d samples, want 0", samples())
	}
}
