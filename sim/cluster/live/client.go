package live

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// seen lets each write of a client wait until the history has it, and each read until the API server answers.
func (e *Engine) seen() interceptor.Funcs {
	return interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			return e.insist(func() error { return c.Get(ctx, key, o, options...) })
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			return e.insist(func() error { return c.List(ctx, list, options...) })
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			return e.settle(c.Create(ctx, o, options...))
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
			return e.settle(c.Update(ctx, o, options...))
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, options ...client.PatchOption) error {
			return e.settle(c.Patch(ctx, o, p, options...))
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.DeleteOption) error {
			return e.settle(c.Delete(ctx, o, options...))
		},
	}
}

// insist reads again while the API server is out of reach, for no longer than it may be. One that has just been started doesn't
// know yet who may do what, and forbids an administrator to read. What became of a write nobody knows.
func (e *Engine) insist(read func() error) error {
	for begin := time.Now(); ; {
		err := read()
		away := apierrors.IsServiceUnavailable(err) || apierrors.IsForbidden(err)
		if !away || time.Since(begin) >= e.Outage {
			return err
		}
		select {
		case <-time.After(insistPause):
		case <-e.ctx.Done():
			return err
		}
	}
}

// insistPause is how long a read waits before it is tried again.
const insistPause = time.Second

// settle adds records until the history has all that was written so far.
func (e *Engine) settle(err error) error {
	if err != nil {
		return err
	}
	e.mu.Lock()
	var newest int64
	for number := range e.awaited { // the greatest is the same in any order
		newest = max(newest, number)
	}
	for _, r := range e.revisions {
		newest = max(newest, r.number)
	}
	e.mu.Unlock()
	for limit := time.Now().Add(patience); e.revision < newest && time.Now().Before(limit) && e.ctx.Err() == nil; {
		if added, wait := e.next(); !added {
			e.await(max(wait, time.Millisecond))
		}
	}
	return nil
}
