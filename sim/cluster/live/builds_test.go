package live

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/cluster/live/agent"
	"github.com/layersim/layersim/sim/history"
)

func buildPod() *corev1.Pod {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: builder.ContainerBuild}, {Name: "wait-for-done"}}}}
	pod.Namespace, pod.Name, pod.UID = "openshift-machine-config-operator", "build-layered-"+strings.Repeat("0", 60)+"-abcde", "1"
	return pod
}

// newBuilds has an API server with one build pod, whose log takes until its end to be read; without an end it can't be read.
func newBuilds(t *testing.T, o builder.Options, ended <-chan struct{}) *builds {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/log") {
			if ended == nil {
				fmt.Fprint(w, "failed to create fsnotify watcher: too many open files")
				return
			}
			fmt.Fprintln(w, "Trying to pull", r.URL.Query().Get("container"))
			<-ended
			fmt.Fprintln(w, "Error: no")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(corev1.PodList{Items: []corev1.Pod{{}, *buildPod()}}) // a client that is gone is no matter
	}))
	t.Cleanup(server.Close)
	core, err := corev1client.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return &builds{engine: &Engine{}, options: o, core: core, containers: map[string]*container{}}
}

// An agent is answered if it knows the token and is in a pod that exists, under a host name that may be cut off.
func TestAgentIsAnswered(t *testing.T) {
	asked := ""
	b := newBuilds(t, builder.Options{Repositories: builder.DefaultRepositories(), Before: func(pod *corev1.Pod, phase string) error {
		asked = pod.Name + " at " + phase
		return builder.ErrHang
	}}, nil)
	answers := agent.NewAnswers("right")
	agent.Answer(answers, builder.QuestionPath, b.answer)
	server := httptest.NewServer(answers)
	defer server.Close()
	name := buildPod().Name
	for _, tt := range []struct{ token, pod, asked, err string }{
		{"right", name, name + " at push", ""},
		{"right", name[:63], name + " at push", ""},
		{"wrong", name, "", "the token is another's"},
		{"", name, "", "the token is another's"},
		{"right", "other", "", `there is no build pod "other"`},
		{"right", "", "", `there is no build pod ""`},
	} {
		asked = ""
		var answer builder.Answer
		err := (&agent.Asker{URL: server.URL, Token: tt.token, Patience: time.Second}).Ask(t.Context(), builder.QuestionPath, builder.Question{Pod: tt.pod, Phase: "push"}, &answer)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || asked != tt.asked {
			t.Errorf("%+v: %v, asked about %q", tt, err, asked)
		}
		if tt.err != "" {
			continue
		}
		if diff := cmp.Diff(b.options.Repositories.List(), answer.Repositories); diff != "" || !answer.Hang {
			t.Errorf("%+v: answer hangs: %t; repositories (-want +got):\n%s", tt, answer.Hang, diff)
		}
	}
}

// The history is told each container's end once, with the log from its beginning.
func TestContainersAreFollowed(t *testing.T) {
	told := make(chan history.Pod, 8)
	ended := make(chan struct{})
	b := newBuilds(t, builder.Options{Observe: func(p history.Pod) { told <- p }}, ended)
	pod := buildPod()
	see := func(s corev1.ContainerState) {
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{
			{Name: builder.ContainerBuild, ContainerID: "containerd://1", State: s},
			{Name: "wait-for-done", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}},
		}
		b.saw(t.Context(), pod.DeepCopy())
	}
	see(corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}})
	see(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}})
	see(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}})
	close(ended)
	for range 2 {
		see(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}})
	}
	b.engine.watches.Wait()
	close(told)
	var got []history.Pod
	for p := range told {
		got = append(got, p)
	}
	want := []history.Pod{{Namespace: pod.Namespace, Name: pod.Name, Container: builder.ContainerBuild, ExitCode: 3,
		Log: "Trying to pull image-build\nError: no\n"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the history is told (-want +got):\n%s", diff)
	}
}

// What the kubelet says in place of a log is no log.
func TestLogThatCannotBeFollowed(t *testing.T) {
	b := newBuilds(t, builder.Options{}, nil)
	text, err := b.log(t.Context(), history.Pod{Namespace: "n", Name: "build", Container: builder.ContainerBuild})
	if text != "" || err == nil || !strings.Contains(err.Error(), "too many open files; raise the limit fs.inotify.max_user_instances") {
		t.Errorf("log %q, %v", text, err)
	}
}

// What runs when the run is over is not told.
func TestFollowingEnds(t *testing.T) {
	ended := make(chan struct{})
	defer close(ended)
	b := newBuilds(t, builder.Options{Observe: func(p history.Pod) { t.Errorf("told of %+v", p) }}, ended)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	pod := buildPod()
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: builder.ContainerBuild, ContainerID: "containerd://1",
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	b.saw(ctx, pod)
	b.engine.watches.Wait()
}

// The token of the agents is in objects of the cluster, but never in the history.
func TestTokenIsConcealed(t *testing.T) {
	h := &history.History{}
	e := &Engine{token: "s3cret", redactor: history.NewRedactor(1)}
	e.init()
	e.recorder = &history.Recorder{History: h, Now: func() time.Duration { return 0 }, Revision: func() int64 { return 1 }}
	job := func(proxy string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "batch/v1", "kind": "Job", "metadata": map[string]any{"name": "build", "generation": int64(3)}, "spec": map[string]any{"proxy": proxy}}}
	}
	e.add(history.Record{Change: &history.Change{Old: job("none"), New: job("http://agent:s3cret@10.0.0.1")}}, time.Now())
	var text strings.Builder
	if err := history.Write(&text, h); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text.String(), "s3cret") || !strings.Contains(text.String(), "http://agent:redacted@10.0.0.1") {
		t.Error(text.String())
	}
	last := h.Records[len(h.Records)-1].Change
	if diff := cmp.Diff(job("http://agent:redacted@10.0.0.1"), last.New); diff != "" {
		t.Error(diff)
	}
}
