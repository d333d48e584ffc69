/*
 * local_setting.h
 *	  Change a setting for a single statement.
 */
#ifndef YELP_SYNC_LOCAL_SETTING_H
#define YELP_SYNC_LOCAL_SETTING_H

#include "utils/guc.h"

/* Until AtEOXact_GUC with the nest level, or an error, restores it. */
static inline void
local_setting(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

#endif							/* YELP_SYNC_LOCAL_SETTING_H */
