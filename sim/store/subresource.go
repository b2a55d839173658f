package store

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Status returns a writer of the subresource status.
func (c *Client) Status() client.SubResourceWriter { return c.SubResource("status") }

// SubResource returns a client of status, scale, eviction, binding or finalize.
func (c *Client) SubResource(name string) client.SubResourceClient { return &subresource{c, name} }

type subresource struct {
	c    *Client
	name string
}

// Update replaces the status, or the body given by client.WithSubResourceBody.
func (r *subresource) Update(ctx context.Context, obj client.Object, opts ...client.SubResourceUpdateOption) error {
	o := (&client.SubResourceUpdateOptions{}).ApplyOptions(opts)
	if r.name == "scale" {
		return r.updateScale(ctx, obj, o)
	}
	body := obj
	if o.SubResourceBody != nil {
		body = o.SubResourceBody
	}
	return r.c.update(ctx, obj, body, r.name, &o.UpdateOptions)
}

// Patch patches the status or the scale.
func (r *subresource) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
	o := (&client.SubResourcePatchOptions{}).ApplyOptions(opts)
	body := obj
	if o.SubResourceBody != nil {
		body = o.SubResourceBody
	}
	if r.name == "scale" {
		return r.patchScale(ctx, obj, body, patch, o)
	}
	return r.c.patch(ctx, obj, body, patch, r.name, &o.PatchOptions)
}

// Apply applies the status.
func (r *subresource) Apply(ctx context.Context, ac runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
	o := (&client.SubResourceApplyOptions{}).ApplyOpts(opts)
	if o.SubResourceBody != nil {
		ac = o.SubResourceBody
	}
	return r.c.apply(ctx, ac, r.name, &o.ApplyOptions)
}

// Get reads the scale or the status.
func (r *subresource) Get(ctx context.Context, obj, body client.Object, _ ...client.SubResourceGetOption) error {
	switch r.name {
	case "scale":
		return r.getScale(ctx, obj, body)
	case "status":
		return r.c.Get(ctx, client.ObjectKeyFromObject(obj), body)
	}
	return fmt.Errorf("get subresource %s: %w", r.name, noSuchResource())
}

// Create posts an eviction or a binding.
func (r *subresource) Create(ctx context.Context, obj, body client.Object, opts ...client.SubResourceCreateOption) error {
	o := (&client.SubResourceCreateOptions{}).ApplyOptions(opts)
	switch r.name {
	case "eviction":
		return r.evict(ctx, obj, body, o)
	case "binding":
		return r.bind(ctx, obj, body, o)
	}
	return noSuchResource()
}
