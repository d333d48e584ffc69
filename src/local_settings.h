/*
 * local_settings.h
 *	  Settings that apply to a single statement.
 */
#ifndef YELP_SYNC_LOCAL_SETTINGS_H
#define YELP_SYNC_LOCAL_SETTINGS_H

#include "utils/guc.h"

/*
 * Begins to change settings.  Returns the nest level for local_settings_end;
 * an error restores the settings as well.
 */
static inline int
local_settings_begin(void)
{
	return NewGUCNestLevel();
}

static inline void
local_setting(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

static inline void
local_settings_end(int level)
{
	AtEOXact_GUC(true, level);
}

#endif							/* YELP_SYNC_LOCAL_SETTINGS_H */
