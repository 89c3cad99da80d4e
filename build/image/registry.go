package image

import (
	"context"
	"errors"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/lull-dev/lull"
)

// fromRegistry finds an image by its name. Layers are fetched when they are read, and checked against their digests.
func fromRegistry(ctx context.Context, source Source) (v1.Image, error) {
	reference, err := name.ParseReference(source.Name)
	if err != nil {
		return nil, invalid("write a path such as ./image.tar, or a name such as nginx:1.27",
			"%q is neither a file of the app nor the name of an image: %s", source.Name, err)
	}
	found, err := remote.Get(reference, remote.WithContext(ctx), remote.WithPlatform(source.Platform), remote.WithUserAgent("lull"))
	if err != nil {
		return nil, registryError(ctx, reference, err)
	}
	if found.MediaType.IsIndex() {
		index, err := found.ImageIndex()
		if err != nil {
			return nil, registryError(ctx, reference, err)
		}
		// The registry's answers are bounded by the library.
		return choose(index, source, func(v1.Hash) error { return nil })
	}
	image, err := found.Image()
	if err != nil {
		return nil, registryError(ctx, reference, err)
	}
	return image, fits(image, source)
}

// fits refuses an image that is too large before anything of it is fetched: packed layers are not larger than plain ones.
func fits(image v1.Image, source Source) error {
	manifest, err := image.Manifest()
	if err != nil {
		return invalid("", "%s has no readable manifest: %s", source.Name, err)
	}
	total := int64(0)
	for _, layer := range manifest.Layers {
		total += max(layer.Size, 0)
	}
	if limit := int64(source.Limits.Bytes); limit > 0 && total > limit {
		return tooLarge(source.Limits)
	}
	return nil
}

func registryError(ctx context.Context, reference name.Reference, err error) error {
	host := reference.Context().RegistryStr()
	var answer *transport.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return &lull.Error{Kind: lull.KindInvalid, Err: err, Message: "image: " + host + " has no image " + reference.Name(),
			Hint: "check the name and the tag"}
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		return &lull.Error{Kind: lull.KindInvalid, Err: err, Message: "image: " + host + " does not give " + reference.Name() + " to everybody, or does not have it",
			Hint: "only public images can be fetched; " + hintSave + ", and set image: ./image.tar"}
	}
	return &lull.Error{Kind: lull.KindBuild, Err: err, Message: "image: fetch " + reference.Name() + ": " + err.Error(),
		Hint: "if this node cannot reach " + host + ": " + hintSave + ", and set image: ./image.tar"}
}
