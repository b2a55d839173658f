package builder_test

import (
	"bytes"
	"encoding/gob"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/layersim/layersim/sim/builder"
)

// An agent is told what a simulated pod would be, and nothing of it is lost on the way.
func TestAnswer(t *testing.T) {
	repositories := builder.NewRepositories(builder.Repository{ID: "a", URL: "https://a", Unreachable: true, Packages: []builder.Package{
		{Name: "tree", EVR: "1-1", Arch: "x86_64", Size: 7, Requires: []string{"glibc"}}}})
	durations := builder.Durations{Start: 1, Base: 2, PerPackage: 3, Fail: 4, PullBandwidth: 5, PushBandwidth: 6}
	for _, tt := range []struct {
		name string
		err  error
		want builder.Answer
	}{
		{"go on", nil, builder.Answer{}},
		{"killed", &builder.ExitError{Code: 137, Reason: "OOMKilled", Message: "Killed"}, builder.Answer{Code: 137, Message: "Killed"}},
		{"hung", builder.ErrHang, builder.Answer{Hang: true}},
		{"failed", errors.New("no space left"), builder.Answer{Code: 1, Message: "Error: no space left"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := builder.Options{Repositories: repositories, Durations: durations, Before: func(pod *corev1.Pod, phase string) error {
				if pod.Name != "p" || phase != builder.PhaseBuild {
					t.Errorf("asked about %s at %s", pod.Name, phase)
				}
				return tt.err
			}}
			pod := &corev1.Pod{}
			pod.Name = "p"
			var wire bytes.Buffer
			if err := gob.NewEncoder(&wire).Encode(o.Answer(pod, builder.PhaseBuild)); err != nil {
				t.Fatal(err)
			}
			var got builder.Answer
			if err := gob.NewDecoder(&wire).Decode(&got); err != nil {
				t.Fatal(err)
			}
			tt.want.Durations, tt.want.Repositories = durations, repositories.List()
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("the agent is told (-want +got):\n%s", diff)
			}
		})
	}
	never := func(*corev1.Pod, string) error { t.Error("asked about no phase"); return nil }
	if got := (builder.Options{Before: never}).Answer(&corev1.Pod{}, ""); got.Code != 0 || got.Hang {
		t.Errorf("before the first phase: %+v", got)
	}
	if got := (builder.Options{}).Answer(&corev1.Pod{}, builder.PhasePull).Durations.Base; got != 4*time.Minute {
		t.Errorf("a build takes %s, want the default", got)
	}
}
