package image

import (
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// choose picks the image for the node's platform out of an index. fits is asked before a document is read into memory.
func choose(index v1.ImageIndex, source Source, fits func(v1.Hash) error) (v1.Image, error) {
	c := chooser{source: source, fits: fits}
	if err := c.collect(index, 0); err != nil {
		return nil, err
	}
	if len(c.found) == 0 {
		if len(c.others) == 0 {
			return nil, invalid("", "%s holds no image", source.Name)
		}
		return nil, wrongPlatform(source, c.others)
	}
	if len(c.tops) > 1 {
		return nil, invalid("keep one of them", "%s holds %d images, not one", source.Name, len(c.tops))
	}
	return c.found[0], nil
}

// chooser collects the images for a platform from an index and the indexes in it.
type chooser struct {
	source Source
	fits   func(v1.Hash) error
	found  []v1.Image
	tops   []v1.Hash // which entries of the top index they belong to
	others []string  // platforms of the images that were not for this one
}

func (c *chooser) collect(index v1.ImageIndex, depth int) error {
	manifest, err := index.IndexManifest()
	if err != nil {
		return invalid("", "%s has an index that cannot be read: %s", c.source.Name, err)
	}
	for _, entry := range manifest.Manifests {
		before := len(c.found)
		if err := c.consider(index, entry, depth); err != nil {
			return err
		}
		if depth == 0 && len(c.found) > before && !slices.Contains(c.tops, entry.Digest) {
			c.tops = append(c.tops, entry.Digest)
		}
	}
	return nil
}

func (c *chooser) consider(index v1.ImageIndex, entry v1.Descriptor, depth int) error {
	if !entry.MediaType.IsIndex() && !entry.MediaType.IsImage() {
		return nil // a signature, say
	}
	if entry.Platform != nil && entry.MediaType.IsImage() && !entry.Platform.Satisfies(c.source.Platform) {
		if entry.Platform.OS != "unknown" { // build tools file what they know about an image under an unknown platform
			c.others = append(c.others, entry.Platform.String())
		}
		return nil
	}
	if err := c.fits(entry.Digest); err != nil {
		return invalid("", "%s is incomplete: %s", c.source.Name, err)
	}
	if entry.MediaType.IsIndex() {
		return c.descend(index, entry.Digest, depth)
	}
	image, err := c.open(index, entry.Digest)
	if err != nil {
		return invalid("", "%s has an image that cannot be read: %s", c.source.Name, err)
	}
	c.found = append(c.found, image)
	return nil
}

func (c *chooser) descend(index v1.ImageIndex, digest v1.Hash, depth int) error {
	if depth >= 3 {
		return invalid("", "%s has indexes within indexes", c.source.Name)
	}
	inner, err := index.ImageIndex(digest)
	if err != nil {
		return invalid("", "%s has an index that cannot be read: %s", c.source.Name, err)
	}
	return c.collect(inner, depth+1)
}

func (c *chooser) open(index v1.ImageIndex, digest v1.Hash) (v1.Image, error) {
	image, err := index.Image(digest)
	if err != nil {
		return nil, err
	}
	manifest, err := image.Manifest()
	if err != nil {
		return nil, err
	}
	if err := c.fits(manifest.Config.Digest); err != nil {
		return nil, fmt.Errorf("its configuration: %w", err)
	}
	return image, nil
}
