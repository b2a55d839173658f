package live

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// followLogs writes the logs of all containers of pods with some labels into a file of the run's logs, as long as the run lasts.
func (e *Engine) followLogs(namespace, labels, name string) {
	core, err := corev1client.NewForConfig(e.Server.config)
	if err != nil {
		e.cancel(err)
		return
	}
	var mu sync.Mutex
	known := map[string]bool{} // by container id
	saw := func(pod *corev1.Pod) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range pod.Status.ContainerStatuses {
			if (s.State.Running == nil && s.State.Terminated == nil) || known[s.ContainerID] {
				continue
			}
			known[s.ContainerID] = true
			e.watches.Go(func() {
				if err := e.copyLog(core, namespace, pod.Name, s.Name, name); err != nil && e.ctx.Err() == nil {
					e.note(name, fmt.Sprintf("read the log of pod %s: %v\n", pod.Name, err))
				}
			})
		}
	}
	e.watches.Go(func() { followPods(e.ctx, core, namespace, labels, saw, func(*corev1.Pod) {}) })
}

func (e *Engine) copyLog(core corev1client.CoreV1Interface, namespace, pod, container, name string) error {
	stream, err := core.Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container, Follow: true, Timestamps: true}).Stream(e.ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	f, err := e.logFile(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, stream)
	return err
}

func (e *Engine) logFile(name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(e.Logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// note adds a text to a log.
func (e *Engine) note(name, text string) {
	f, err := e.logFile(name)
	if err != nil {
		return // a log that can't be written can't be told of
	}
	defer f.Close()
	_, _ = io.WriteString(f, text)
}

// states says of pods with some labels why they are not ready, for an error message.
func (e *Engine) states(namespace, labels string) string {
	core, err := corev1client.NewForConfig(e.Server.config)
	if err != nil {
		return ""
	}
	pods, err := core.Pods(namespace).List(context.WithoutCancel(e.ctx), metav1.ListOptions{LabelSelector: labels})
	if err != nil {
		return ""
	}
	if len(pods.Items) == 0 {
		return "; there is no pod " + labels
	}
	var b strings.Builder
	for _, p := range pods.Items {
		fmt.Fprintf(&b, "; pod %s is %s", p.Name, p.Status.Phase)
		for _, c := range p.Status.Conditions {
			if c.Status != corev1.ConditionTrue && c.Message != "" {
				fmt.Fprintf(&b, ", %s: %s", c.Reason, c.Message)
			}
		}
		for _, s := range p.Status.ContainerStatuses {
			if w := s.State.Waiting; w != nil {
				fmt.Fprintf(&b, ", %s: %s", w.Reason, w.Message)
			}
			if t := s.LastTerminationState.Terminated; t != nil {
				fmt.Fprintf(&b, ", it ended with %d", t.ExitCode)
			}
		}
	}
	return b.String()
}
